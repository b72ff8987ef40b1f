"""Settings of runs that take a second: what a table or figure is made from is not the question."""

from __future__ import annotations

SMALL = [
    "synthesis.num_images=48", "synthesis.num_holdout=16", "synthesis.batch_size=64",
    "synthesis.iterations=4", "synthesis.center_iterations=4", "synthesis.perturbation=0",
    "finetune.batch_size=24", "finetune.num_views=1", "finetune.calibration_batches=2",
    "finetune.epochs=1",
]  # fmt: skip
