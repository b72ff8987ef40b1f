"""The binary files of CIFAR-10 and CIFAR-100; the pickled "python version" is never opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from synq_tune.data.images import LabelledImages
from synq_tune.errors import InputError

_SHAPE = (3, 32, 32)


def read_cifar10(folder: Path) -> LabelledImages:
    """CIFAR-10's 10,000 test images from `test_batch.bin`.

    Raises:
        InputError: the binary file is missing or damaged.
    """
    file = _find(folder, "test_batch", "cifar-10-batches")
    return _read(file, num_label_bytes=1, num_classes=10, names="batches.meta.txt")


def read_cifar100(folder: Path) -> LabelledImages:
    """CIFAR-100's 10,000 test images with their fine labels from `test.bin`.

    Raises:
        InputError: the binary file is missing or damaged.
    """
    file = _find(folder, "test", "cifar-100")
    return _read(file, num_label_bytes=2, num_classes=100, names="fine_label_names.txt")


def _find(folder: Path, stem: str, prefix: str) -> Path:
    """The `.bin` file in the folder, or in the folder its archive unpacks to."""
    folder = folder.expanduser()
    places = [folder, folder / f"{prefix}-bin", folder / f"{prefix}-binary"]
    for place in places:
        if (place / f"{stem}.bin").is_file():
            return place / f"{stem}.bin"
    pickles = [*places, folder / f"{prefix}-py", folder / f"{prefix}-python"]
    if any((place / stem).is_file() for place in pickles):
        raise InputError(
            f"{folder}: `{stem}.bin exists` must hold, but got only the pickled python version, "
            "which could run code. Download the binary version."
        )
    raise InputError(
        f"{folder}: `{stem}.bin exists` must hold, but got no such file. Give the folder of the "
        "binary version."
    )


def _read(file: Path, num_label_bytes: int, num_classes: int, names: str) -> LabelledImages:
    """Records of label bytes (the last one counts), then red, green and blue planes."""
    data = np.fromfile(file, dtype=np.uint8)
    record = num_label_bytes + int(np.prod(_SHAPE))
    if len(data) == 0 or len(data) % record:
        raise InputError(
            f"{file}: `size is a multiple of {record} bytes` must hold, but got {len(data)} bytes. "
            "Download it again."
        )
    records = data.reshape(-1, record)
    labels = torch.from_numpy(records[:, num_label_bytes - 1].astype(np.int64))
    if int(labels.max()) >= num_classes:
        raise InputError(
            f"{file}: `label < {num_classes}` must hold, but got label={int(labels.max())}."
        )
    images = torch.from_numpy(records[:, num_label_bytes:].reshape(-1, *_SHAPE).copy())
    return LabelledImages(images, labels, _class_names(file.with_name(names), num_classes))


def _class_names(file: Path, num_classes: int) -> tuple[str, ...]:
    """Names from the text file beside the batches, or numbers where it is missing."""
    lines = file.read_text(encoding="utf-8").split() if file.is_file() else []
    return tuple(lines) if len(lines) == num_classes else tuple(map(str, range(num_classes)))
