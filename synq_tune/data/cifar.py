"""CIFAR-10 and CIFAR-100 as they are published: the binary files, or the "python version"."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synq_tune.data.images import LabelledImages
from synq_tune.data.plain_pickle import read_plain_pickle
from synq_tune.errors import InputError

_SHAPE = (3, 32, 32)


@dataclass(frozen=True)
class _Layout:
    """What the files of a CIFAR are called and how a record looks."""

    num_classes: int
    stem: str
    binary_folders: tuple[str, ...]
    python_folder: str
    num_label_bytes: int
    binary_names: str
    python_labels: str
    python_meta: str
    python_names: str


_CIFAR10 = _Layout(
    10, "test_batch", ("cifar-10-batches-bin", "cifar-10-batches-binary"), "cifar-10-batches-py",
    1, "batches.meta.txt", "labels", "batches.meta", "label_names",
)  # fmt: skip
_CIFAR100 = _Layout(
    100, "test", ("cifar-100-binary", "cifar-100-bin"), "cifar-100-python",
    2, "fine_label_names.txt", "fine_labels", "meta", "fine_label_names",
)  # fmt: skip


def read_cifar10(folder: Path) -> LabelledImages:
    """CIFAR-10's 10,000 test images from `test_batch.bin`, or else from the pickle `test_batch`.

    Args:
        folder: holds the file, or the folder that the archive unpacks to.

    Raises:
        InputError: there is no such file, it is damaged, or the pickle holds more than plain data
            (which is never executed).
    """
    return _read(folder.expanduser(), _CIFAR10)


def read_cifar100(folder: Path) -> LabelledImages:
    """CIFAR-100's 10,000 test images with fine labels from `test.bin`, or else from `test`.

    Args:
        folder: holds the file, or the folder that the archive unpacks to.

    Raises:
        InputError: there is no such file, it is damaged, or the pickle holds more than plain data
            (which is never executed).
    """
    return _read(folder.expanduser(), _CIFAR100)


def _read(folder: Path, layout: _Layout) -> LabelledImages:
    binary = [folder, *(folder / name for name in layout.binary_folders)]
    file = _first(binary, f"{layout.stem}.bin")
    if file is not None:
        return _read_binary(file, layout)
    file = _first([folder, folder / layout.python_folder], layout.stem)
    if file is not None:
        return _read_python(file, layout)
    raise InputError(
        f"{folder}: `{layout.stem}.bin exists` (or the python version's {layout.stem}) must hold, "
        "but got neither. Give the folder of the binary or of the python version."
    )


def _first(places: list[Path], name: str) -> Path | None:
    return next((place / name for place in places if (place / name).is_file()), None)


def _read_binary(file: Path, layout: _Layout) -> LabelledImages:
    """Records of label bytes (the last one counts), then red, green and blue planes."""
    data = np.fromfile(file, dtype=np.uint8)
    record = layout.num_label_bytes + int(np.prod(_SHAPE))
    if len(data) == 0 or len(data) % record:
        raise InputError(
            f"{file}: `size is a multiple of {record} bytes` must hold, but got {len(data)} bytes. "
            "Download it again."
        )
    records = data.reshape(-1, record)
    labels = records[:, layout.num_label_bytes - 1].astype(np.int64)
    names = file.with_name(layout.binary_names)
    lines = names.read_text(encoding="utf-8").split() if names.is_file() else []
    return _labelled(file, records[:, layout.num_label_bytes :], labels, lines, layout)


def _read_python(file: Path, layout: _Layout) -> LabelledImages:
    content = read_plain_pickle(file)
    pixels, labels = content.get("data"), content.get(layout.python_labels)
    is_whole = (
        isinstance(pixels, np.ndarray)
        and pixels.dtype == np.uint8
        and pixels.ndim == 2
        and pixels.shape[1] == np.prod(_SHAPE)
        and isinstance(labels, list)
        and len(labels) == len(pixels) > 0
        and all(type(label) is int for label in labels)
    )
    if not is_whole:
        raise InputError(
            f"{file}: `data (N, 3072) uint8 and {layout.python_labels} (N) are there` must hold, "
            f"but got the keys {', '.join(content) or 'none'}. Download it again."
        )
    meta = file.with_name(layout.python_meta)
    names = read_plain_pickle(meta).get(layout.python_names) if meta.is_file() else []
    return _labelled(file, pixels, np.array(labels), names, layout)


def _labelled(
    file: Path, pixels: np.ndarray, labels: np.ndarray, names: Any, layout: _Layout
) -> LabelledImages:
    """Images of (N, 3072) pixels; classes are numbers where not all of them have a name."""
    outside = labels[(labels < 0) | (labels >= layout.num_classes)]
    if len(outside):
        raise InputError(
            f"{file}: `0 <= label < {layout.num_classes}` must hold, but got label={outside[0]}."
        )
    is_complete = isinstance(names, list) and len(names) == layout.num_classes
    known = names if is_complete else range(layout.num_classes)
    images = torch.from_numpy(np.array(pixels).reshape(-1, *_SHAPE))
    return LabelledImages(
        images, torch.from_numpy(labels.astype(np.int64)), tuple(map(_name, known))
    )


def _name(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
