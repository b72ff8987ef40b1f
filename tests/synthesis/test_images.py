"""Images made elsewhere become a dataset, or an error says what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from synq_tune.data.synthetic import SyntheticDataset
from synq_tune.errors import InputError
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.synthesis.dataset import synthesize
from tests.synthesis.conftest import MakeSpec

PIXELS = np.random.default_rng(1).integers(0, 256, (16, 1, 8, 8), dtype=np.uint8)


@pytest.fixture
def load(teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path):
    """load(source, **settings) → the dataset made from it."""

    def make(source: Path, **settings: object) -> SyntheticDataset:
        spec = make_spec(method="images", source=str(source), **settings)
        return synthesize(teacher, spec, tmp_path / "store", progress=False)[0]

    return make


def _expected(teacher: LoadedTeacher, pixels: np.ndarray = PIXELS) -> torch.Tensor:
    return teacher.preprocessing.normalize(torch.from_numpy(pixels)).half()


def _write_png(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(PIXELS[number, 0]).save(path)


def test_arrays_keep_their_order(load, teacher: LoadedTeacher, tmp_path: Path) -> None:
    """Normalised images in the file's order; labels are the teacher's opinion."""
    np.save(tmp_path / "x.npy", PIXELS)
    dataset = load(tmp_path / "x.npy")
    assert torch.equal(dataset.images, _expected(teacher))
    with torch.no_grad():
        assert torch.equal(dataset.labels, teacher(dataset.images.float()).argmax(1))


def test_labels_beside_the_array_are_used(load, tmp_path: Path) -> None:
    """`labels.npy` in the same folder gives the labels."""
    np.save(tmp_path / "x.npy", PIXELS.astype(np.float32) / 255)
    np.save(tmp_path / "labels.npy", np.arange(16) % 10)
    assert load(tmp_path / "x.npy").labels.tolist() == [i % 10 for i in range(16)]


def test_numbered_folders_are_labels(load, teacher: LoadedTeacher, tmp_path: Path) -> None:
    """Files come in the order of their numbers, across the class folders."""
    for number in range(16):
        _write_png(tmp_path / "png" / str(number % 5) / f"{number}.png", number)
    dataset = load(tmp_path / "png")
    assert dataset.labels.tolist() == [i % 5 for i in range(16)]
    assert torch.equal(dataset.images, _expected(teacher))


def test_flat_folders_get_the_teachers_labels(load, teacher: LoadedTeacher, tmp_path: Path) -> None:
    """Without class folders the arg-max of the teacher is the label."""
    for number in range(16):
        _write_png(tmp_path / "png" / f"image{number:02d}.png", number)
    dataset = load(tmp_path / "png")
    assert torch.equal(dataset.images, _expected(teacher))
    with torch.no_grad():
        assert torch.equal(dataset.labels, teacher(dataset.images.float()).argmax(1))


def test_holdout_of_class_folders_has_every_class(load, tmp_path: Path) -> None:
    """Classes take turns, so that the end of the list is not one class."""
    for number in range(16):
        _write_png(tmp_path / "png" / str(number // 4) / f"a{number}.png", number)
    dataset = load(tmp_path / "png")
    assert sorted(dataset.labels[-dataset.num_holdout :].tolist()) == [0, 1, 2, 3]


def test_address_follows_the_content(load, tmp_path: Path) -> None:
    """The same images elsewhere are the same dataset, one other pixel another."""
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "x.npy", PIXELS ^ (name == "c"))
    a, b, c = (load(tmp_path / name / "x.npy") for name in ("a", "b", "c"))
    assert a.address == b.address != c.address
    assert str(tmp_path) not in (a.path / "manifest.json").read_text()


def test_too_few_images_are_an_error(load, tmp_path: Path) -> None:
    """Training part and hold-out must both be filled."""
    np.save(tmp_path / "x.npy", PIXELS)
    with pytest.raises(InputError, match="got 16 images for 17"):
        load(tmp_path / "x.npy", num_images=13)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (PIXELS[:, :, :4], r"shape == \(N, 1, 8, 8\)"),
        (PIXELS[0], r"shape == \(N, 1, 8, 8\)"),
        (PIXELS.astype(np.float32), r"floats scaled to \[0, 1\]"),
        (np.full((16, 1, 8, 8), np.nan), r"floats scaled to \[0, 1\]"),
        (PIXELS.astype(np.int64), r"floats scaled to \[0, 1\]"),
        (np.array([object()]), "plain array"),
    ],
    ids=["size", "dims", "scale", "nan", "dtype", "pickle"],
)
def test_wrong_arrays_are_errors(load, tmp_path: Path, array: np.ndarray, message: str) -> None:
    """Another shape, scale or type is refused, and a pickle is never executed."""
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(InputError, match=message):
        load(tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("labels", "message"),
    [(np.arange(16), "label < 10"), (np.arange(3), "16 integers"), (np.zeros(16), "16 integers")],
)
def test_wrong_labels_are_errors(load, tmp_path: Path, labels: np.ndarray, message: str) -> None:
    """Labels must be one class index per image."""
    np.save(tmp_path / "x.npy", PIXELS)
    np.save(tmp_path / "labels.npy", labels)
    with pytest.raises(InputError, match=message):
        load(tmp_path / "x.npy")


def test_a_missing_source_is_an_error(load, tmp_path: Path) -> None:
    """The source must exist."""
    with pytest.raises(InputError, match="folder or an .npy file"):
        load(tmp_path / "missing")
