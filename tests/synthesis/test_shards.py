"""Finished batches on disk are kept, damaged ones are made again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from synq_tune.synthesis.shards import Shard, load_or_make


def _make() -> Shard:
    return Shard({"images": torch.arange(6.0).view(2, 3)}, 0.25)


def _never() -> Shard:
    raise AssertionError("a finished batch was made again")


def test_a_finished_shard_is_not_made_again(tmp_path: Path) -> None:
    """The second call reads what the first one wrote, its loss included."""
    made = load_or_make(tmp_path, "a", _make)
    found = load_or_make(tmp_path, "a", _never)
    assert torch.equal(found.tensors["images"], made.tensors["images"]) and found.loss == 0.25


@pytest.mark.parametrize("name", ["a.safetensors", "a.json"])
def test_a_damaged_shard_is_made_again(tmp_path: Path, name: str) -> None:
    """A shard without its sum is worthless and replaced."""
    load_or_make(tmp_path, "a", _make)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    assert torch.equal(
        load_or_make(tmp_path, "a", _make).tensors["images"], _make().tensors["images"]
    )
    load_or_make(tmp_path, "a", _never)


def test_a_shard_without_its_note_is_unfinished(tmp_path: Path) -> None:
    """The note comes last: killed between the two, the batch is made again."""
    load_or_make(tmp_path, "a", _make)
    (tmp_path / "a.json").unlink()
    with pytest.raises(AssertionError, match="made again"):
        load_or_make(tmp_path, "a", _never)
