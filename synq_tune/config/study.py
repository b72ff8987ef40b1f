"""The search over it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from synq_tune.config.metrics import Chosen
from synq_tune.config.settings import Count, Seed, Settings, Text, expand_home


class Confirm(Settings):
    """Re-run the best `top` configurations until each has `seeds` runs; choose by their mean."""

    top: int = Field(3, ge=1, le=10_000)
    """How many finalists."""
    seeds: int = Field(3, ge=1, le=10_000)
    """Runs of each finalist, the one of the search included."""


class Study(Settings):
    """How a search runs, stops and chooses."""

    metric: Chosen = "auto"
    """What chooses. `top1` needs labelled images; the others compare with the teacher on held-out
    synthetic ones. `auto` = top1 with labels, else agreement."""
    val_data: Text | None = None
    """Labelled images, as `--val-data` takes them; `null` = none."""
    num_trials: int = Field(64, ge=1, le=1_000_000)
    """Trials in total."""
    max_concurrent: Literal["auto"] | Count = "auto"
    """Trials at once; `auto` = what the machine takes."""
    gpus_per_trial: Literal["auto"] | Annotated[float, Field(ge=0, le=1024)] = "auto"
    """GPUs of one trial, whole or a fraction. `auto` = one for the first trial, whose memory then
    says how many share a GPU."""
    deterministic: Count | None = None
    """Trials at once with which one seed gives one study: proposal k knows those up to k minus this
    number. `null` = all that are over."""
    scheduler: Literal["asha", "none"] = "asha"
    """`asha` stops weak trials early, `none` stops none."""
    seed: Seed = 0
    """Of everything that a search draws."""
    first: tuple[dict[str, Any], ...] = ()
    """Configurations tried first; a key left out takes finetune's own value."""
    eval_every: Literal["auto"] | Count = "auto"
    """Epochs between evaluations; `auto` = ASHA's rungs and the last epoch."""
    eval_images: Count = 2000
    """Labelled images per evaluation before the last one."""
    parity_images: Literal["auto"] | Count = "auto"
    """Labelled images, besides the held-out synthetic ones, that the exported files are compared
    on; `auto` = 2,000 of 224 px, more of smaller ones."""
    checkpoint_every: Literal["auto"] | Count = "auto"
    """Epochs between checkpoints, besides the evaluated ones. `auto` = where more than a minute has
    passed since the last; more where all trials would send over 100 MB a second."""
    confirm: Confirm | None = Confirm()
    """How finalists are confirmed; `null` = not at all."""
    max_hours: float | None = Field(None, gt=0, le=1_000_000)
    """Hours after which the search stops; `null` = no limit."""
    target_loss: float | None = Field(None, ge=0, le=100)
    """Points below full precision at which the study is done; calibration alone is tried first."""
    keep_checkpoints: Count = 3
    """Students of the best trials that stay on disk."""

    @field_validator("val_data")
    @classmethod
    def _home(cls, source: str | None) -> str | None:
        """`KIND:~/x` is a folder of the user's home, as `~/x` is."""
        if source is None:
            return None
        kind, colon, path = source.rpartition(":")
        return f"{kind}{colon}{expand_home(path)}"
