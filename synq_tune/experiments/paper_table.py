"""A table of SynQ's paper: its numbers, and what runs here for each of them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from synq_tune.config import Settings
from synq_tune.config.settings import Text
from synq_tune.errors import lookup

Scale = Literal["small", "paper"]


Metric = Literal["top1_report", "cam_kl"]
"""What a row's number is: percent of the reporting images that are right, or the divergence of the
student's saliency maps from the teacher's there (10⁻² nats, see `experiments.saliency`)."""


class Noise(Settings):
    """What is added to the images that trials train on, in the scale in which pixels are 0 to 1."""

    kind: Literal["gaussian", "speckle", "salt_pepper", "uniform"]
    """`speckle` is multiplied by the pixel; `salt_pepper` makes pixels 0 or 1."""
    strength: float = Field(gt=0, le=1)
    """Standard deviation; of `uniform` the largest change, of `salt_pepper` the share of pixels."""


class Column(Settings):
    """One network at one bit width."""

    paper: Text
    """The space of the paper's network and budget."""
    small: Text | None = None
    """The space that stands for it on a small machine; `null` = there is none."""
    settings: dict[str, dict[str, Any]] = {}
    """What it changes of its space, under what a row changes."""
    noise: Noise | None = None
    """What is added to the synthetic images; `null` = nothing."""


class PaperRow(Settings):
    """One method."""

    settings: dict[str, Any] | None = None
    """What it changes of a space, as a variant of `compare.py` does; `null` = it is not built."""
    why_not: Text | None = None
    """Why it is not built."""
    small: dict[str, Any] | None = None
    """The same at the small scale, where that is something else."""
    over: Text | None = None
    """The row that its gain is over."""
    paper: dict[str, float] = {}
    """The metric in the paper, by column."""


class PaperTable(Settings):
    """A whole table."""

    title: Text
    """What it compares."""
    metric: Metric = "top1_report"
    """What its numbers are."""
    columns: dict[str, Column]
    """By name."""
    rows: dict[str, PaperRow]
    """By the method's name."""

    def settings_at(self, scale: Scale) -> dict[str, dict[str, Any]]:
        """What each row that is built changes of a space, by the row's name."""
        found = {
            name: row.small if scale == "small" and row.small is not None else row.settings
            for name, row in self.rows.items()
        }
        return {name: settings for name, settings in found.items() if settings is not None}

    def row_names(self, scale: Scale) -> list[str]:
        """The rows that can be named at a scale."""
        return list(self.rows)

    @model_validator(mode="after")
    def _names_are_known(self) -> PaperTable:
        for name, row in self.rows.items():
            for column in row.paper:
                lookup(f"column of {name}", column, self.columns)
            if row.over is not None:
                lookup(f"row that {name} is over", row.over, self.rows)
        return self
