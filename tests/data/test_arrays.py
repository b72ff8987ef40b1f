"""Images and labels as two arrays, of any number of channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synq_tune.data.labelled import load_labelled
from synq_tune.errors import InputError
from synq_tune.models.preprocessing import Preprocessing


def _input(channels: int, size: int = 8) -> Preprocessing:
    return Preprocessing(size, size, channels, (0.5,) * channels, (0.5,) * channels)


def _write(folder: Path, images: Any, labels: Any) -> None:
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)


def _images(channels: int, count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, channels, 8, 8), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_any_number_of_channels(tmp_path: Path, channels: int) -> None:
    """Arrays in the teacher's size come back as they are; a class may have no image."""
    images = _images(channels)
    _write(tmp_path, images, np.array([0, 1, 4, 1], dtype=np.uint16))
    data = load_labelled(f"npy:{tmp_path}", _input(channels), 5)
    assert np.array_equal(data.images.numpy(), images)
    assert data.labels.tolist() == [0, 1, 4, 1]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_of_known_channels_are_fitted(tmp_path: Path, channels: int) -> None:
    """One, three and four channels are resized to the teacher's size."""
    images = np.broadcast_to(
        np.arange(1, channels + 1, dtype=np.uint8).reshape(1, -1, 1, 1), (2, channels, 8, 8)
    )
    _write(tmp_path, images, [0, 1])
    data = load_labelled(f"npy:{tmp_path}", _input(channels, 12), 2)
    assert data.images.shape == (2, channels, 12, 12)
    assert data.images[1, :, 5, 5].tolist() == list(range(1, channels + 1))


def test_images_of_other_channels_cannot_be_fitted(tmp_path: Path) -> None:
    """Seven channels are no image file's."""
    _write(tmp_path, _images(7), [0, 1, 0, 1])
    with pytest.raises(InputError, match="channels is 1, 3 or 4.*channels=7"):
        load_labelled(f"npy:{tmp_path}", _input(7, 12), 2)


WRONG = {
    "float": (_images(3).astype(np.float32), [0] * 4, r"images are \(N, C, H, W\) uint8.*float32"),
    "three axes": (_images(3)[0], [0] * 3, r"images are \(N, C, H, W\)"),
    "short": (_images(3), [0] * 3, "4 images, 3 labels"),
    "none": (_images(3)[:0], np.zeros(0, int), "0 images, 0 labels"),
    "float labels": (_images(3), [0.0] * 4, r"labels are \(N,\) of integers.*float64"),
    "too large": (_images(3), [0, 1, 2, 0], "label < 2.*got label=2 for image 2"),
    "negative": (_images(3), [0, 1, 0, -1], "label < 2.*got label=-1 for image 3"),
    "objects": (_images(3), np.array([{}] * 4, dtype=object), "can be read.*pickle"),
}


@pytest.mark.parametrize(("images", "labels", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_arrays_are_one_line(tmp_path: Path, images: Any, labels: Any, message: str) -> None:
    """Type, shape, number and range are checked; objects are never unpickled."""
    _write(tmp_path, images, labels)
    with pytest.raises(InputError, match=message):
        load_labelled(f"npy:{tmp_path}", _input(3), 2)


def test_a_missing_array_is_named(tmp_path: Path) -> None:
    """Images without labels measure nothing."""
    np.save(tmp_path / "images.npy", _images(3))
    with pytest.raises(InputError, match=r"holds labels\.npy"):
        load_labelled(f"npy:{tmp_path}", _input(3), 2)
