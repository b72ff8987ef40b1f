"""Scatter plots side by side, as a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from synq_tune.store import atomic_path

_MARKERS = "ox^s"


@dataclass(frozen=True)
class Panel:
    """One plot: its labels, and the points of each named group."""

    title: str
    x_label: str
    y_label: str
    groups: dict[str, list[tuple[float, float]]]
    """Group → its (x, y); at most four groups."""


def save_scatter(rows: Sequence[Sequence[Panel]], file: Path) -> None:
    """Write a PNG with one row of panels below the other."""
    width = max(map(len, rows))
    figure = Figure(figsize=(4 * width, 3.4 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), width, squeeze=False)
    for axes, panels in zip(grid, rows, strict=True):
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        for axis, panel in zip(axes, panels, strict=False):
            _draw(axis, panel)
    with atomic_path(file) as temporary:
        figure.savefig(temporary, format="png")


def _draw(axis: Axes, panel: Panel) -> None:
    for marker, (label, points) in zip(_MARKERS, panel.groups.items(), strict=False):
        if points:
            axis.scatter(*zip(*points, strict=True), s=16, marker=marker, label=label, alpha=0.7)
    axis.set(xlabel=panel.x_label, ylabel=panel.y_label, title=panel.title)
    axis.legend()
