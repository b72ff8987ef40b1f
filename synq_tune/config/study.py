"""The search over it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from synq_tune.config.metrics import COSTS, Chosen, Objective
from synq_tune.config.settings import Count, Seed, Settings, Text, expand_home


class Confirm(Settings):
    """Re-run the best `top` configurations until each has `seeds` runs; choose by their mean."""

    top: int = Field(3, ge=1, le=10_000)
    """How many finalists; with several objectives all points of the front are."""
    seeds: int = Field(3, ge=1, le=10_000)
    """Runs of each finalist, the one of the search included."""


class Study(Settings):
    """How a search runs, stops and chooses."""

    metric: Chosen = "auto"
    """What chooses. `top1` needs labelled images; the others compare with the teacher on held-out
    synthetic ones. `auto` = top1 with labels, else agreement."""
    objectives: tuple[Objective, ...] = ()
    """Goals, such as `[top1, size]`: the study keeps the front. The first is `metric`. Empty =
    `metric` alone."""
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
    """Epochs between checkpoints, besides the evaluated ones. `auto` = a minute apart, or more
    in a large cluster."""
    confirm: Confirm | None = Confirm()
    """How finalists are confirmed; `null` = not at all."""
    max_hours: float | None = Field(None, gt=0, le=1_000_000)
    """Hours after which the search stops; `null` = no limit."""
    target_loss: float | None = Field(None, ge=0, le=100)
    """Points below full precision at which the study is done; calibration alone is tried first."""
    keep_checkpoints: Count = 3
    """Students of the best trials that stay on disk."""

    @model_validator(mode="before")
    @classmethod
    def _first_is_metric(cls, given: Any) -> Any:
        """`metric` need not be said beside `objectives`."""
        if not isinstance(given, dict) or given.get("metric", "auto") != "auto":
            return given
        objectives = given.get("objectives")
        first = objectives[0] if isinstance(objectives, (list, tuple)) and objectives else None
        return {**given, "metric": first} if first in get_args(Chosen) else given

    @field_validator("objectives")
    @classmethod
    def _are_sound(cls, objectives: tuple[str, ...]) -> tuple[str, ...]:
        """The first says how right a student is; the others are not the same again."""
        if objectives and objectives[0] in COSTS:
            raise ValueError(
                "`the first objective is no cost` must hold (it stops trials early), but got "
                f"{list(objectives)}. Put top1, agreement or auto first."
            )
        same = len(set(objectives)) < len(objectives) or "auto" in objectives[1:]
        if same or (objectives[:1] == ("auto",) and not set(objectives[1:]) <= set(COSTS)):
            raise ValueError(
                f"`objectives differ` must hold, but got {list(objectives)}. Name each once; auto "
                "comes first and goes with costs alone."
            )
        return objectives

    @model_validator(mode="after")
    def _objectives_fit(self) -> Study:
        """One number chooses, or several do; a target is of one."""
        if self.objectives and self.metric != self.objectives[0]:
            raise ValueError(
                "`study.metric is the first of study.objectives` must hold, but got "
                f"metric={self.metric!r}, objectives={list(self.objectives)}. Leave metric out."
            )
        if len(self.objectives) > 1 and self.target_loss is not None:
            raise ValueError(
                "`a target ends a search by one objective` must hold, but got "
                f"target_loss={self.target_loss}, objectives={list(self.objectives)}. Leave one out."
            )
        return self

    @property
    def has_front(self) -> bool:
        """Whether several objectives are kept side by side."""
        return len(self.objectives) > 1

    @field_validator("val_data")
    @classmethod
    def _home(cls, source: str | None) -> str | None:
        """`KIND:~/x` is a folder of the user's home, as `~/x` is."""
        if source is None:
            return None
        kind, colon, path = source.rpartition(":")
        return f"{kind}{colon}{expand_home(path)}"
