"""A PNG of several plots with a title above and a caption below."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from synq_tune.store import atomic_path

_WIDTH, _HEIGHT = 4.6, 3.5
"""Inches of a plot."""
_LINE = 0.16
"""Inches of a line of the caption."""
_LETTERS = 15
"""Letters of the caption in an inch."""


class Plot(Protocol):
    """What fills one place of a sheet."""

    def draw(self, axes: Axes) -> None:
        """Draw itself."""


def save_sheet(
    plots: Sequence[Plot], file: Path, title: str, caption: Sequence[str], columns: int = 3
) -> None:
    """Write a PNG, atomically.

    Args:
        plots: at least one, row by row.
        caption: its lines; long ones are broken.
        columns: plots side by side, at most.
    """
    columns = min(columns, len(plots))
    rows = math.ceil(len(plots) / columns)
    width = max(_WIDTH * columns, 6.0)
    wrap = textwrap.TextWrapper(int(width * _LETTERS), break_on_hyphens=False)
    lines = [part for line in caption for part in wrap.wrap(line)]
    foot = _LINE * (len(lines) + 1)
    height = _HEIGHT * rows + foot + 0.4
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(rect=(0, foot / height, 1, 1 - foot / height))
    figure.suptitle(title, fontsize=12)
    figure.text(0.1 / width, 0.06 / height, "\n".join(lines), fontsize=8, va="bottom", wrap=False)
    places = figure.subplots(rows, columns, squeeze=False).flat
    for axes, plot in zip(places, plots, strict=False):
        plot.draw(axes)
    for axes in list(places):
        axes.set_axis_off()
    with atomic_path(file) as temporary:
        figure.savefig(temporary, format="png")
