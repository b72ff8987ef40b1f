"""The synthetic dataset on disk: it comes back as it was, or an error says why not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from synq_tune.data.synthetic import is_complete, load_dataset, save_dataset
from synq_tune.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A stored dataset of four training and two hold-out images."""
    images = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(0)).half()
    about = {"method": "noise", "address": "abc", "losses": [0.1, 2.5e-7]}
    save_dataset(tmp_path / "abc", images, torch.arange(6), 2, about)
    return tmp_path / "abc"


def test_round_trip(folder: Path) -> None:
    """Images, labels, parts and provenance come back."""
    dataset = load_dataset(folder)
    assert dataset.images.dtype == torch.float16 and dataset.images.shape == (6, 1, 4, 4)
    assert dataset.train_labels.tolist() == [0, 1, 2, 3]
    assert dataset.labels[-dataset.num_holdout :].tolist() == [4, 5]
    parts = torch.cat((dataset.train_images, dataset.holdout_images))
    assert torch.equal(parts, dataset.images)
    assert (dataset.method, dataset.address, dataset.path) == ("noise", "abc", folder)
    assert dataset.provenance["losses"] == [0.1, 2.5e-7]


@pytest.mark.parametrize("name", ["images.safetensors", "manifest.json"])
@pytest.mark.parametrize("place", [0.1, 0.5, 0.95])
def test_a_flipped_byte_is_found(folder: Path, name: str, place: float) -> None:
    """Any changed byte is an error that names the file and what to delete."""
    file = folder / name
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}.*Delete {folder}"):
        load_dataset(folder)


def test_without_a_manifest_it_is_unfinished(folder: Path) -> None:
    """The manifest is written last; without it there is no dataset."""
    assert is_complete(folder)
    (folder / "manifest.json").unlink()
    assert not is_complete(folder)
    with pytest.raises(InputError, match="is finished"):
        load_dataset(folder)


def test_writing_leaves_no_temporary_files(folder: Path) -> None:
    """Only the two files lie in the folder."""
    assert {f.name for f in folder.iterdir()} == {"images.safetensors", "manifest.json"}
