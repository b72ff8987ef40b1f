"""The search over it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from synq_tune.config.settings import Settings


class Confirm(Settings):
    """Re-run the best `top` configurations until each has `seeds` runs; choose by their mean."""

    top: int = Field(3, ge=1)
    seeds: int = Field(3, ge=1)


class Study(Settings):
    """How a search runs, stops and chooses."""

    metric: Literal["auto", "top1", "agreement", "holdout_kl", "holdout_mse"] = "auto"
    """What chooses: `top1` needs labelled images; `agreement`, and `holdout_kl` and `holdout_mse` (the
    lower the better), compare with the teacher on held-out synthetic ones; `auto` = top1 with labels,
    else agreement."""
    val_data: str | None = None
    num_trials: int = Field(64, ge=1)
    max_concurrent: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    gpus_per_trial: Literal["auto"] | Annotated[float, Field(ge=0)] = "auto"
    """A fraction, or a number of them; `auto` = one for the first trial, then what its memory leaves room
    for. Trials that do not fit after all are tried again with fewer neighbours."""
    deterministic: Annotated[int, Field(ge=1)] | None = None
    """Trials on the way in logical time: proposal k and its early stopping know the trials up to
    k - `deterministic`, whatever has finished, so that one seed is one study; `null` = all that is
    known by then."""
    scheduler: Literal["asha", "none"] = "asha"
    seed: int = Field(0, ge=0)
    first: tuple[dict[str, Any], ...] = ()
    """Configurations tried first; a key left out takes finetune's own value."""
    eval_every: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Epochs between evaluations; `auto` = ASHA's rungs and the last epoch."""
    eval_images: int = Field(2000, ge=1)
    """Labelled images per evaluation before the last one."""
    checkpoint_every: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Epochs between checkpoints of a running trial, besides the evaluated ones; `auto` = where more
    than a minute has passed since the last. A crash costs a running trial at most one interval."""
    confirm: Confirm | None = Confirm()
    max_hours: float | None = Field(None, gt=0)
    target_loss: float | None = Field(None, ge=0)
    """Points below full precision at which the study is done; calibration alone is tried first."""
    keep_checkpoints: int = Field(3, ge=1)
