"""CIFAR's binary files are read as they were written; pickles are never opened."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from synq_tune.data.labelled import load_labelled
from synq_tune.errors import InputError
from synq_tune.models.preprocessing import Preprocessing

INPUT = Preprocessing(32, 32, 3, (0.5,) * 3, (0.5,) * 3)


def _records(num_classes: int, label_bytes: int) -> tuple[torch.Tensor, torch.Tensor, bytes]:
    images = torch.randint(256, (6, 3, 32, 32), dtype=torch.uint8)
    labels = torch.randint(num_classes, (6,))
    coarse = torch.full((6, label_bytes - 1), 3, dtype=torch.uint8)
    rows = torch.cat((coarse, labels[:, None].to(torch.uint8), images.flatten(1)), dim=1)
    return images, labels, rows.numpy().tobytes()


@pytest.mark.parametrize(
    ("source", "file", "num_classes", "label_bytes"),
    [("cifar10", "test_batch.bin", 10, 1), ("cifar100", "test.bin", 100, 2)],
)
def test_binary_round_trip(
    tmp_path: Path, source: str, file: str, num_classes: int, label_bytes: int
) -> None:
    """Images and (fine) labels come back bit by bit."""
    images, labels, content = _records(num_classes, label_bytes)
    (tmp_path / file).write_bytes(content)
    data = load_labelled(f"{source}:{tmp_path}", INPUT, num_classes)
    assert torch.equal(data.images, images) and torch.equal(data.labels, labels)


def test_names_beside_the_batches_are_read(tmp_path: Path) -> None:
    """The text file of class names gives class_names, also in the archive's own folder."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "test_batch.bin").write_bytes(_records(10, 1)[2])
    (folder / "batches.meta.txt").write_text("\n".join(f"name{i}" for i in range(10)) + "\n\n")
    names = load_labelled(f"cifar10:{tmp_path}", INPUT, 10).class_names
    assert names == tuple(f"name{i}" for i in range(10))


def test_pickles_are_refused(tmp_path: Path) -> None:
    """Where only the python version lies, the message asks for the binary one."""
    (tmp_path / "test_batch").write_bytes(b"\x80\x04.")
    with pytest.raises(InputError, match="binary version"):
        load_labelled(f"cifar10:{tmp_path}", INPUT, 10)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """An empty folder is no CIFAR."""
    with pytest.raises(InputError, match="test.bin exists"):
        load_labelled(f"cifar100:{tmp_path}", INPUT, 100)


def test_a_truncated_file_is_an_error(tmp_path: Path) -> None:
    """A file that does not hold whole records is refused."""
    (tmp_path / "test_batch.bin").write_bytes(_records(10, 1)[2][:-5])
    with pytest.raises(InputError, match="multiple of 3073"):
        load_labelled(f"cifar10:{tmp_path}", INPUT, 10)
