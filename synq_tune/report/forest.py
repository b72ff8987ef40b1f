"""A forest plot: differences with their intervals, one row each, around the line of no difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from synq_tune.report.blocks import Plot
from synq_tune.report.figures import BLUE, GREEN, GREY, INK, RED, figure, plain

_ROW = 38
"""Pixels of a row."""


@dataclass(frozen=True)
class Effect:
    """One row: a difference in percentage points, with its 95 % interval."""

    name: str
    mean: float | None
    """None: there is nothing to compare, and the row is empty."""
    half: float | None = None
    """Half the interval's width; None: one pair gives none."""
    note: str = ""
    """What a pointer over the row says as well."""

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or `open` where the interval holds zero or there is none."""
        if self.mean is None or self.half is None or abs(self.mean) <= self.half:
            return "open"
        return "better" if self.mean > 0 else "worse"


_COLORS = {"better": GREEN, "worse": RED, "open": GREY}


def forest_plot(effects: Sequence[Effect], baseline: str, metric: str) -> Plot:
    """Rows from top to bottom in the order given; the baseline is the line at zero.

    Args:
        effects: of the variants; not of the baseline.
        baseline: its name.
        metric: what differs, in percentage points.
    """
    shown = [effect for effect in effects if effect.mean is not None]
    labels = [plain(effect.name) for effect in effects]
    axis = {"title": {"text": plain(f"gain in {metric} over {baseline}, in points"), "standoff": 8}}
    drawn = figure(
        [_row(effect) for effect in shown] or [{"type": "scatter", "x": [], "y": []}],
        xaxis={**axis, "zeroline": True, "zerolinecolor": INK, "zerolinewidth": 1.5},
        yaxis={
            "type": "category",
            "categoryorder": "array",
            "categoryarray": labels[::-1],  # a category axis starts at the bottom
            "range": [-0.6, len(labels) - 0.4],
        },
    )
    says = f"What each variant gains over {baseline}, with its 95 % interval"
    return Plot(drawn, says, height=110 + _ROW * len(effects), min_width=420)


def _row(effect: Effect) -> dict[str, object]:
    color = _COLORS[effect.verdict]
    spread = {"type": "data", "array": [effect.half], "thickness": 2.5, "width": 6, "color": color}
    return {
        "type": "scatter", "mode": "markers", "x": [effect.mean], "y": [plain(effect.name)],
        "marker": {"color": color if effect.half is not None else "rgba(0,0,0,0)", "size": 11,
                   "line": {"color": color if effect.half is not None else BLUE, "width": 2}},
        **({"error_x": spread} if effect.half is not None else {}),
        "text": [plain(effect.name) + "<br>" + plain(effect.note)], "hoverinfo": "text",
    }  # fmt: skip
