"""A folder with `images.npy` and `labels.npy`, for images of any number of channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from synq_tune.data.images import LabelledImages
from synq_tune.errors import InputError
from synq_tune.notes import counted


def read_arrays(folder: Path, num_classes: int) -> LabelledImages:
    """`images.npy` (N, C, H, W) uint8 and `labels.npy` (N,) of any integer type.

    Args:
        folder: holds both files.
        num_classes: labels are below it; a class may have no image.

    Raises:
        InputError: a file is missing, of another type or shape, or holds a pickle (which is never
            executed).
    """
    folder = folder.expanduser()
    images, labels = _load(folder / "images.npy"), _load(folder / "labels.npy")
    _check(
        images.dtype == np.uint8 and images.ndim == 4,
        folder,
        "images",
        "(N, C, H, W) uint8",
        f"{images.shape} {images.dtype}",
    )
    _check(
        labels.dtype.kind in "iu" and labels.ndim == 1,
        folder,
        "labels",
        "(N,) of integers",
        f"{labels.shape} {labels.dtype}",
    )
    _check(
        len(images) == len(labels) > 0,
        folder,
        "labels",
        "one for each image, at least one",
        f"{counted(len(images), 'image')}, {counted(len(labels), 'label')}",
    )
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise InputError(
            f"{folder / 'labels.npy'}: `0 <= label < {num_classes}` (the teacher's classes) must "
            f"hold, but got label={labels[wrong[0]]} for image {wrong[0]}."
        )
    names = tuple(map(str, range(num_classes)))
    tensor = torch.from_numpy(np.ascontiguousarray(images))
    return LabelledImages(tensor, torch.from_numpy(labels.astype(np.int64)), names)


def _load(file: Path) -> np.ndarray:
    if not file.is_file():
        raise InputError(f"{file}: `npy:DIR holds {file.name}` must hold, but there is none.")
    try:
        array = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(
            f"{file}: `the array can be read` must hold, but got: {str(error).splitlines()[0]}."
        ) from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{file}: `the file holds one array` must hold, but got an archive.")
    return array


def _check(is_so: bool, folder: Path, stem: str, wanted: str, got: str) -> None:
    if not is_so:
        raise InputError(f"{folder / stem}.npy: `{stem} are {wanted}` must hold, but got {got}.")
