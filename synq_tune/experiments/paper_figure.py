"""A figure of SynQ's paper: what it shows, and what runs here for it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import model_validator

from synq_tune.config.settings import Settings, Text
from synq_tune.experiments.paper_table import PaperRow, PaperTable, Scale

IMAGE_KINDS = ("amplitude", "spectrum", "images", "errors")
"""Drawn from synthetic or labelled images; no student is trained."""
Kind = Literal["amplitude", "spectrum", "images", "errors", "sweep", "bars", "overhead", "maps"]


class Panel(Settings):
    """One plot of a sweep: a curve over one setting, or a grid over two."""

    title: Text
    """What it varies."""
    sweep: dict[str, list[int | float]]
    """Setting → its values; the first one is the x axis."""
    small: dict[str, list[int | float]] | None = None
    """The same at the small scale, where that is something else."""
    series: dict[str, dict[str, Any]]
    """Curve → what it changes of the space beside the swept setting."""
    flat: dict[str, dict[str, Any]] = {}
    """Line → what it changes; nothing is swept."""

    def values_at(self, scale: Scale) -> dict[str, list[int | float]]:
        """Setting → values."""
        return self.small if scale == "small" and self.small is not None else self.sweep

    def rows_at(self, scale: Scale) -> Iterator[tuple[str, dict[str, Any]]]:
        """The name and the settings of each of its runs."""
        sweep = self.values_at(scale)
        for series, settings in self.series.items():
            for point in itertools.product(*sweep.values()):
                at = dict(zip(sweep, point, strict=True))
                yield row_name(series, at), _over(settings, at)
        yield from self.flat.items()

    @model_validator(mode="after")
    def _has_one_or_two_axes(self) -> Panel:
        for sweep in (self.sweep, self.small or self.sweep):
            if len(sweep) not in (1, 2) or list(sweep) != list(self.sweep):
                raise ValueError(
                    "`a panel sweeps one or two settings, the same at both scales` must hold, but "
                    f"got {list(sweep)}."
                )
        return self


class PaperFigure(PaperTable):
    """A whole figure; its runs are the rows, or those of its panels."""

    kind: Kind
    """How it is drawn."""
    shows: Text
    """What is to be seen in it, and what the paper says of it."""
    rows: dict[str, PaperRow] = {}
    """By name; empty where there are panels."""
    panels: list[Panel] = []
    """Of a sweep."""
    parts: tuple[Literal["real", "synthetic", "filtered"], ...] = ("real", "synthetic", "filtered")
    """Which images are looked at, where it is drawn from images."""

    def settings_at(self, scale: Scale) -> dict[str, dict[str, Any]]:
        """What each run changes of a space, by its name."""
        if not self.panels:
            return super().settings_at(scale)
        return dict(row for panel in self.panels for row in panel.rows_at(scale))

    def row_names(self, scale: Scale) -> list[str]:
        """The rows that can be named at a scale."""
        return list(self.settings_at(scale))


def row_name(series: str, at: dict[str, Any]) -> str:
    """Such as `SynQ, tau 0.5`: a run of a sweep."""
    return ", ".join([series, *(f"{key.split('.')[-1]} {value:g}" for key, value in at.items())])


def _over(settings: dict[str, Any], at: dict[str, Any]) -> dict[str, Any]:
    """Settings with the swept ones, `room.key`, over them."""
    merged = copy.deepcopy(settings)
    for name, value in at.items():
        room, key = name.split(".")
        merged.setdefault(room, {})[key] = value
    return merged
