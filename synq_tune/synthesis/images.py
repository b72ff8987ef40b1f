"""Images a user brings: PNG files or an `.npy` array, made by any other tool."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synq_tune.config import Synthesis
from synq_tune.config.synthesis import DatasetSettings
from synq_tune.data.decode import ImageFile, decode_images
from synq_tune.errors import InputError
from synq_tune.models.preprocessing import Preprocessing
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.notes import counted
from synq_tune.store import sha256_file
from synq_tune.synthesis.labels import teacher_labels
from synq_tune.synthesis.method import GeneratedImages, Synthesizer

MAX_PIXEL = 16.0
"""Unclipped synthetic pixels stay far below; 0..255 stays far above."""


class ImportedImages(Synthesizer):
    """Images of another tool, stored like those of a method."""

    def address(self, config: Synthesis) -> dict[str, Any]:
        """Settings that change the result; of the source its content, not its place.

        Raises:
            InputError: the source does not exist.
        """
        digest = hashlib.sha256()
        source = _source(config)
        for file in _files(source):
            name = file.relative_to(source) if source.is_dir() else Path(file.name)
            digest.update(f"{name.as_posix()} {sha256_file(file)}\n".encode())
        counts = config.part(DatasetSettings).model_dump(mode="json")
        return {**counts, "source_sha256": digest.hexdigest()}

    def synthesize(
        self, teacher: LoadedTeacher, config: Synthesis, folder: Path, show: bool
    ) -> GeneratedImages:
        """The first num_images + num_holdout images; labels from the source or the teacher's
        arg-max.

        PNG files are read in the order of their names (numbers before padding; rank within the
        folder where names are no numbers), one class folder after the other for equal names, so
        that the hold-out at the end has every class. An `.npy` array keeps its order.

        Raises:
            InputError: the source is unreadable, of another shape, or has too few images.
        """
        source = _source(config)
        read = _read_folder if source.is_dir() else _read_array
        pixels, labels = read(source, teacher, config.num_images + config.num_holdout)
        images = teacher.preprocessing.normalize(pixels).half()
        if labels is None:
            labels = teacher_labels(teacher, images, config.batch_size)
        return GeneratedImages(images, labels, {"losses": []})

    def steps(self, config: Synthesis, num_classes: int) -> int:
        """Nothing is optimised."""
        return 0


def _source(config: Synthesis) -> Path:
    source = Path(config.source or "").expanduser()
    if source.is_dir() or source.suffix == ".npy" and source.is_file():
        return source
    raise InputError(
        f"`synthesis.source is a folder or an .npy file` must hold, but got "
        f"source={config.source!r}."
    )


def _labels_file(source: Path) -> Path:
    return source.with_name("labels.npy")


def _files(source: Path) -> list[Path]:
    if source.is_dir():
        return sorted(f for f in source.rglob("*") if f.suffix.lower() == ".png" and f.is_file())
    labels = _labels_file(source)
    return [source, *([labels] if labels.is_file() else [])]


def _check_count(source: Path, found: int, needed: int) -> None:
    if found < needed:
        raise InputError(
            f"{source}: `images >= num_images + num_holdout` must hold, but got "
            f"{counted(found, 'image')} for {needed:,}. Lower synthesis.num_images or synthesis.num_holdout."
        )


def _check_labels(source: Path, labels: Tensor, num_classes: int) -> None:
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < num_classes):
        raise InputError(
            f"{source}: `0 <= label < {num_classes}` must hold, but got labels from "
            f"{int(labels.min())} to {int(labels.max())}."
        )


def _read_folder(source: Path, teacher: LoadedTeacher, count: int) -> tuple[Tensor, Tensor | None]:
    files = _in_order(source, _files(source))
    _check_count(source, len(files), count)
    labels = _folder_labels(source, files)
    if labels is not None:
        _check_labels(source, labels, teacher.num_classes)
        labels = labels[:count]
    openers = [ImageFile(str(file), partial(open, file, "rb")) for file in files[:count]]
    return decode_images(openers, teacher.preprocessing), labels


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _class_of(source: Path, file: Path) -> str:
    """Name of the class folder, or an empty text for a file that lies in none."""
    parts = file.relative_to(source).parts
    return parts[0] if len(parts) > 1 else ""


def _folder_labels(source: Path, files: list[Path]) -> Tensor | None:
    names = [_class_of(source, file) for file in files]
    return torch.tensor([int(n) for n in names]) if all(map(_is_number, names)) else None


def _in_order(source: Path, files: list[Path]) -> list[Path]:
    if all(_is_number(file.stem) for file in files):
        return sorted(files, key=lambda file: (int(file.stem), file))
    rank: dict[Path, int] = {}
    seen: dict[str, int] = {}
    for file in files:
        folder = _class_of(source, file)
        rank[file] = seen[folder] = seen.get(folder, -1) + 1
    return sorted(files, key=lambda file: (rank[file], file))


def _read_array(source: Path, teacher: LoadedTeacher, count: int) -> tuple[Tensor, Tensor | None]:
    pixels = _to_pixels(source, _load(source), teacher.preprocessing)
    _check_count(source, len(pixels), count)
    file = _labels_file(source)
    if not file.is_file():
        return pixels[:count], None
    labels = _load(file)
    if labels.shape != (len(pixels),) or labels.dtype.kind not in "iu":
        raise InputError(
            f"{file}: `labels are {len(pixels)} integers` must hold, but got "
            f"shape={labels.shape}, dtype={labels.dtype}."
        )
    labels = torch.from_numpy(labels.astype(np.int64))
    _check_labels(file, labels, teacher.num_classes)
    return pixels[:count], labels[:count]


def _load(file: Path) -> np.ndarray:
    try:
        return np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(
            f"{file}: `the file is a plain array` must hold, but got: {error}."
        ) from error


def _to_pixels(source: Path, array: np.ndarray, preprocessing: Preprocessing) -> Tensor:
    """uint8, or float32 in the scale in which real images lie in [0, 1].

    Synthetic pixels are never clipped, so they may lie outside; 0..255 as floats is a mistake.
    """
    if array.ndim != 4 or array.shape[1:] != preprocessing.shape:
        raise InputError(
            f"{source}: `shape == (N, {', '.join(map(str, preprocessing.shape))})` must hold, but "
            f"got shape={array.shape}."
        )
    if array.dtype == np.uint8:
        return torch.from_numpy(array)
    # NaN compares false, so that it is refused as well.
    if array.dtype.kind != "f" or not (array.size and np.abs(array).max() <= MAX_PIXEL):
        raise InputError(
            f"{source}: `pixels are uint8, or floats scaled to [0, 1]` must hold, but "
            f"got dtype={array.dtype}. Divide by 255."
        )
    return torch.from_numpy(array.astype(np.float32))


METHOD = ImportedImages()
