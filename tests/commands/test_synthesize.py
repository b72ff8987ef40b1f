"""`scripts/synthesize.py`: the dataset alone, and its images as files that can be read back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from synq_tune.commands.synthesize import synthesize_space
from synq_tune.config.load import load_space
from synq_tune.errors import InputError
from synq_tune.models.teacher import load_teacher
from synq_tune.synthesis.dataset import synthesize

SMALL = [
    "synthesis.num_images=20", "synthesis.num_holdout=4", "synthesis.iterations=2",
    "synthesis.center_iterations=2",
]  # fmt: skip


def test_arrays_are_read_back_as_they_were(tmp_path: Path) -> None:
    """npy keeps unclipped pixels and labels: importing them gives the same images."""
    spec = load_space("digits_w3a3", SMALL)
    line = synthesize_space(spec, tmp_path / "store", "npy", tmp_path / "out")
    assert line.startswith("made 20 + 4 hold-out images")
    sets = [
        "synthesis.method=images", f"synthesis.source={tmp_path / 'out/images.npy'}",
        "synthesis.num_images=16", "synthesis.num_holdout=4",
    ]  # fmt: skip
    imported, _ = synthesize(
        load_teacher(spec.teacher), load_space("digits_w3a3", sets), tmp_path / "other", False
    )
    own, _ = synthesize(load_teacher(spec.teacher), spec, tmp_path / "store", False)
    torch.testing.assert_close(imported.images, own.train_images, rtol=2e-3, atol=2e-3)
    assert torch.equal(imported.labels, own.train_labels)


def test_pictures_stand_in_a_folder_per_label(tmp_path: Path) -> None:
    """PNG files for tools that calibrate on folders; a second run reuses the dataset and says so."""
    spec = load_space("digits_w3a3", SMALL)
    synthesize_space(spec, tmp_path / "store", "png", tmp_path / "out")
    files = list((tmp_path / "out").rglob("*.png"))
    assert len(files) == 20
    assert {f.parent.name for f in files} <= {str(label) for label in range(10)}
    assert synthesize_space(spec, tmp_path / "store", None, tmp_path / "out").startswith("reused")


def test_files_are_not_mixed_with_others(tmp_path: Path) -> None:
    """An output folder that holds something is refused."""
    (tmp_path / "x").write_text("mine")
    with pytest.raises(InputError, match="--output is new or empty"):
        synthesize_space(load_space("digits_w3a3", SMALL), tmp_path / "store", "png", tmp_path)
