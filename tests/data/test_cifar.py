"""CIFAR's files are read as they were written; pickles are taken apart and never executed."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
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


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("key", [str, str.encode], ids=["text", "bytes"])
@pytest.mark.parametrize("inside", [True, False], ids=["folder", "parent"])
def test_the_python_version_reads_like_the_binary_one(
    tmp_path: Path, protocol: int, key: type, inside: bool
) -> None:
    """Images, fine labels and names come from the pickles, in the folder or its parent."""
    images, labels, _ = _records(100, 2)
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    rows, fine = images.flatten(1).numpy(), labels.tolist()
    content = {key("data"): rows, key("fine_labels"): fine, key("coarse_labels"): [0] * 6}
    (folder / "test").write_bytes(pickle.dumps(content, protocol))
    names = [f"name{i}" for i in range(100)]
    (folder / "meta").write_bytes(pickle.dumps({key("fine_label_names"): names}, protocol))
    data = load_labelled(f"cifar100:{folder if inside else tmp_path}", INPUT, 100)
    assert torch.equal(data.images, images) and torch.equal(data.labels, labels)
    assert data.class_names == tuple(names)


def test_the_binary_version_is_preferred(tmp_path: Path) -> None:
    """Where both lie, the pickle is not even looked at."""
    images, _, content = _records(10, 1)
    (tmp_path / "test_batch.bin").write_bytes(content)
    (tmp_path / "test_batch").write_bytes(b"no pickle")
    assert torch.equal(load_labelled(f"cifar10:{tmp_path}", INPUT, 10).images, images)


def test_a_malicious_pickle_is_not_executed(tmp_path: Path) -> None:
    """Code hidden behind good data is named, and did not run."""

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'executed'}",)

    content = {"data": np.zeros((1, 3072), np.uint8), "labels": [0], "more": Bomb()}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match="asks for posix.system; nothing of it was run"):
        load_labelled(f"cifar10:{tmp_path}", INPUT, 10)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "content",
    [
        {"data": np.zeros((2, 3072), np.uint8), "labels": [0]},
        {"data": np.zeros((2, 3072), np.float32), "labels": [0, 1]},
        {"data": np.zeros((1, 100), np.uint8), "labels": [0]},
        {"data": np.zeros((1, 3072), np.uint8), "labels": ["0"]},
        {"labels": [0]},
    ],
    ids=["one label short", "float", "too small", "words", "no data"],
)
def test_a_python_version_of_something_else_is_an_error(
    tmp_path: Path, content: dict[str, object]
) -> None:
    """Plain data in another form is refused with what is expected."""
    (tmp_path / "test_batch").write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=r"data \(N, 3072\) uint8 and labels"):
        load_labelled(f"cifar10:{tmp_path}", INPUT, 10)


@pytest.mark.parametrize("label", [-1, 10])
def test_a_label_outside_the_classes_is_an_error(tmp_path: Path, label: int) -> None:
    """Pickled labels may be any number."""
    content = {"data": np.zeros((1, 3072), np.uint8), "labels": [label]}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=f"label < 10.*got label={label}"):
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
