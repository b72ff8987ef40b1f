"""The plots of a sheet: curves, bars, a grid of values, pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes

from synq_tune.report.figures import BLUE, GREEN, GREY, ORANGE, RED

_COLORS = (BLUE, ORANGE, GREEN, RED, GREY)
_DASHES = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Line:
    """One curve; with an empty x a horizontal line."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    half: Sequence[float] = ()
    """Half the width of the band around it; empty = none."""


@dataclass(frozen=True)
class Curves:
    """Curves over one axis."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    is_log_x: bool = False
    is_log_y: bool = False
    marks: bool = False
    """Whether each point is marked."""
    upright: dict[str, float] = field(default_factory=dict)
    """Name → x of a vertical line."""

    def draw(self, axes: Axes) -> None:
        """Draw itself."""
        for number, line in enumerate(self.lines):
            look = {"color": _COLORS[number % len(_COLORS)], "label": line.name}
            look["linestyle"] = _DASHES[number % len(_DASHES)]
            _draw_line(axes, line, look, "o" if self.marks else None)
        for name, x in self.upright.items():
            axes.axvline(x, color=GREY, linestyle=":", label=name)
        axes.set(xlabel=self.x_label, ylabel=self.y_label, title=self.title)
        axes.grid(alpha=0.25)
        if self.is_log_x:
            axes.set_xscale("log")
            _mark_values(axes, self.lines)
        if self.is_log_y:
            axes.set_yscale("log")
        axes.legend(fontsize=8)


def _mark_values(axes: Axes, lines: Sequence[Line]) -> None:
    """Ticks at the values themselves; powers of ten would say nothing of four points."""
    values = sorted({x for line in lines for x in line.x})
    axes.set_xticks(values, [f"{x:g}" for x in values], rotation=45)
    axes.set_xticks([], minor=True)


def _draw_line(axes: Axes, line: Line, look: dict[str, str], marker: str | None) -> None:
    half = np.asarray(line.half if len(line.half) else np.zeros(len(line.y)))
    y = np.asarray(line.y)
    if not len(line.x):
        axes.axhline(float(y[0]), **look)
        axes.axhspan(float(y[0] - half[0]), float(y[0] + half[0]), color=look["color"], alpha=0.15)
        return
    axes.plot(line.x, y, marker=marker, markersize=4, **look)
    axes.fill_between(line.x, y - half, y + half, color=look["color"], alpha=0.15, linewidth=0)


@dataclass(frozen=True)
class Bars:
    """A bar a name, whose height stands below it."""

    title: str
    y_label: str
    names: Sequence[str]
    heights: Sequence[float]
    half: Sequence[float] = ()
    """Half the error bar at each name; empty = none."""
    is_from_zero: bool = True

    def draw(self, axes: Axes) -> None:
        """Draw itself."""
        heights = np.asarray(self.heights)
        shown = [f"{n}\n{height:.2f}" for n, height in zip(self.names, heights, strict=True)]
        error = self.half if len(self.half) else None
        axes.bar(shown, heights, yerr=error, color=BLUE, width=0.6, capsize=4)
        axes.axhline(0, color="black", linewidth=0.8)
        if not self.is_from_zero:
            room = max(float(np.ptp(heights)), *self.half, 0.5)
            axes.set_ylim(float(heights.min()) - 1.5 * room, float(heights.max()) + 1.5 * room)
        axes.set(ylabel=self.y_label, title=self.title)


@dataclass(frozen=True)
class Grid:
    """Values over two axes, as colours and numbers; NaN is a place without a value."""

    title: str
    x_label: str
    y_label: str
    x: Sequence[float]
    y: Sequence[float]
    values: np.ndarray
    """(len(y), len(x))."""
    label: str
    """Of the colours."""

    def draw(self, axes: Axes) -> None:
        """Draw itself."""
        drawn = axes.imshow(self.values, origin="lower", aspect="auto", cmap="viridis")
        axes.set_xticks(range(len(self.x)), [f"{x:g}" for x in self.x])
        axes.set_yticks(range(len(self.y)), [f"{y:g}" for y in self.y])
        middle = np.nanmean(self.values) if np.isfinite(self.values).any() else 0.0
        for (row, column), value in np.ndenumerate(self.values):
            if math.isfinite(value):
                ink = "black" if value > middle else "white"
                axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=ink)
        axes.set(xlabel=self.x_label, ylabel=self.y_label, title=self.title)
        axes.figure.colorbar(drawn, ax=axes, label=self.label)


@dataclass(frozen=True)
class Spectrum:
    """A two-dimensional spectrum, zero frequency in the middle."""

    title: str
    values: np.ndarray
    """(H, W), log10 of the magnitude."""
    limits: tuple[float, float]
    """Of the colours, the same for spectra that are compared."""

    def draw(self, axes: Axes) -> None:
        """Draw itself."""
        height, width = self.values.shape
        left, bottom = -(width // 2) - 0.5, -(height // 2) - 0.5  # bin 0 is centred at 0
        extent = (left, left + width, bottom + height, bottom)
        low, high = self.limits
        drawn = axes.imshow(self.values, cmap="viridis", vmin=low, vmax=high, extent=extent)
        axes.set(title=self.title, xlabel="frequency (bins)")
        axes.figure.colorbar(drawn, ax=axes, label="log10 magnitude")


@dataclass(frozen=True)
class Pictures:
    """Rows of pictures of one size."""

    title: str
    rows: dict[str, np.ndarray]
    """Name → (N, H, W, 3) in [0, 1]."""

    def draw(self, axes: Axes) -> None:
        """Draw itself."""
        gap = max(1, next(iter(self.rows.values())).shape[1] // 16)
        around = ((0, 0), (0, gap), (0, gap), (0, 0))
        strips = [
            np.concatenate(list(np.pad(images, around, constant_values=1.0)), axis=1)
            for images in self.rows.values()
        ]
        axes.imshow(np.concatenate(strips), interpolation="nearest")
        height = len(strips[0])
        axes.set_yticks([height * (n + 0.45) for n in range(len(strips))], list(self.rows))
        axes.set_xticks([])
        axes.tick_params(left=False)
        for side in axes.spines.values():
            side.set_visible(False)
        axes.set_title(self.title)
