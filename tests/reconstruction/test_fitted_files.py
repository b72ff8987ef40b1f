"""Codes that a reconstruction has chosen are those of every file, and of a resumed student."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from synq_tune.config.load import load_space
from synq_tune.export.best import export_student
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.quantization.student import weight_layers
from tests.helpers import digits_trial

SETS = ["bits.weights=3", "bits.activations=8", "finetune.epochs=0", "finetune.batch_size=16",
        "finetune.calibration_batches=2", "reconstruct.iterations=2", "reconstruct.lr_rounding=0.5",
        "reconstruct.batch_size=16", "reconstruct.num_images=32",
        "reconstruct.blocks=[layer1, layer2, layer3]"]  # fmt: skip


@pytest.mark.parametrize(
    ("quantizer", "formats"),
    [
        ("genie", {"onnx", "packed"}),
        pytest.param("genie_deploy", {"onnx", "packed", "hardware"}, marks=pytest.mark.slow),
    ],
)
@pytest.mark.long
def test_every_file_has_the_chosen_codes(
    teacher: LoadedTeacher, tmp_path: Path, quantizer: str, formats: set[str]
) -> None:
    """They are not those of rounding to nearest, and no file and no golden vector differs."""
    spec = load_space("digits_genie_w2a2", [*SETS, f"quantizer={quantizer}"])
    trial = digits_trial(spec, teacher, tmp_path)
    list(trial.run())
    for layer in weight_layers(trial.student).values():
        codes, scale, zero_point = (np.asarray(v.detach()) for v in layer.integer_weight())
        shape = (-1,) + (1,) * (codes.ndim - 1)
        weight = np.asarray(layer.weight.detach())
        nearest = np.round(weight / scale.reshape(shape) - zero_point.reshape(shape))
        assert np.any(codes != nearest)
    images = trial.assets.dataset.images.float()
    folder = tmp_path / "best"
    report = export_student(trial.student, teacher, spec, folder, images[:8], iter([images]))
    assert {name.split()[0] for name in report["logits"]} == formats
    assert all(entry["agreement"] == 100 for entry in report["logits"].values())
    assert report["weight_codes"]
    assert all(entry["mismatches"] == 0 for entry in report["weight_codes"].values())
    written = json.loads((folder / "parity.json").read_text())
    assert written["golden"].keys() == formats


def test_a_stored_student_keeps_its_codes(teacher: LoadedTeacher, tmp_path: Path) -> None:
    """A student's file is its state: loaded into a fresh one it gives the same logits."""
    spec = load_space("digits_genie_w2a2", SETS)
    first, second = (digits_trial(spec, teacher, tmp_path) for _ in range(2))
    list(first.run())
    images = first.assets.dataset.images[:8].float()
    list(second.run())
    for layer in weight_layers(second.student).values():
        layer.weight_quantizer.release(layer.weight)
    second.student.load_state_dict(first.student.state_dict())
    with torch.no_grad():
        assert torch.equal(first.student(images), second.student(images))
