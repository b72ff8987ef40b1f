"""One copy of the labelled images per node."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from synq_tune.data.images import LabelledImages
from synq_tune.data.labelled_cache import halves_address, share_halves, shared_halves
from synq_tune.errors import InputError

COUNT, SIZE = 2000, 64


def _halves(count: int = 8, size: int = 4) -> tuple[LabelledImages, LabelledImages]:
    generator = torch.Generator().manual_seed(0)

    def half() -> LabelledImages:
        shape = (count, 3, size, size)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        return LabelledImages(images, torch.arange(count) % 2, ("cat", "dog"))

    return half(), half()


def test_halves_come_back_as_they_were(tmp_path: Path) -> None:
    """Images, labels and class names of both halves survive the store."""
    halves = _halves()
    found = shared_halves(share_halves(halves, tmp_path), tmp_path)
    assert found is not None
    for half, again in zip(halves, found, strict=True):
        assert torch.equal(half.images, again.images)
        assert torch.equal(half.labels, again.labels)
        assert again.class_names == ("cat", "dog")


def test_another_label_is_another_address() -> None:
    """The address is of the contents: one changed label gives another."""
    halves = _halves()
    address = halves_address(halves)
    halves[1].labels[0] = 1
    assert halves_address(halves) != address


def test_a_node_without_the_file_says_so(tmp_path: Path) -> None:
    """A store that lacks the halves gives None, for the caller to decode them."""
    assert shared_halves("0" * 32, tmp_path) is None


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """A truncated file is an error that says what to delete."""
    address = share_halves(_halves(), tmp_path)
    (path,) = (tmp_path / "labelled").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="Delete the file"):
        shared_halves(address, tmp_path)


@pytest.mark.long
def test_a_second_process_adds_no_second_copy(tmp_path: Path) -> None:
    """Reading all halves that this process has mapped, too, costs a process no memory of its own."""
    halves = _halves(COUNT, SIZE)
    size = sum(half.images.numel() for half in halves)
    address = share_halves(halves, tmp_path)
    here = shared_halves(address, tmp_path)
    assert here is not None
    assert sum(int(half.images.sum()) for half in here) > 0
    code = f"""
import sys
from pathlib import Path
from synq_tune.bench.process_memory import pages
from synq_tune.data.labelled_cache import shared_halves
before = pages()["private"]
halves = shared_halves("{address}", Path({str(tmp_path)!r}))
assert sum(int(half.images.sum()) for half in halves) > 0
print(pages()["private"] - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < size / 4
