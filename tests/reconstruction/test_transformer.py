"""GENIE-M on a vision transformer: the same parts, cut by the graph."""

from __future__ import annotations

from pathlib import Path

import pytest

from synq_tune.config.load import load_space
from synq_tune.models.teacher import load_teacher
from synq_tune.quantization.student import weight_layers
from tests.helpers import digits_trial

SETS = ["quantizer=genie", "bits.weights=3", "bits.activations=4", "finetune.epochs=0",
        "finetune.batch_size=16", "finetune.calibration_batches=2", "reconstruct.method=genie",
        "reconstruct.lr_rounding=0.05", "reconstruct.lr_weight_step=1e-3",
        "reconstruct.lr_step=4e-4", "reconstruct.batch_size=16"]  # fmt: skip


@pytest.mark.slow
def test_a_fitted_transformer_is_nearer_to_its_teacher(tmp_path: Path) -> None:
    """On held-out images too; attention's products and every Linear are in its parts."""
    ends = []
    for iterations in (0, 40):
        spec = load_space("digits_vit_w4a8", [*SETS, f"reconstruct.iterations={iterations}"])
        trial = digits_trial(spec, load_teacher(spec.teacher), tmp_path)
        ends.append(list(trial.run())[-1])
    grids = [layer.weight_quantizer for layer in weight_layers(trial.student).values()]
    assert all(grid.is_chosen for grid in grids)
    blocks = [name for name in ends[1].losses if name.startswith("block/blocks.")]
    assert blocks
    assert ends[1].metrics["holdout_mse"] < ends[0].metrics["holdout_mse"]
