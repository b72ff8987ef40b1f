"""The figure of a front: what trials measure against what they cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from synq_tune.config.metrics import MEASURED
from synq_tune.report.figures import BLUE, GREY, INK, ORANGE, Figure, figure, metric_title, plain
from synq_tune.study.state import Run
from synq_tune.study.summary import Point

About = Callable[[Run], Sequence[str]]
"""What a pointer over a trial says, line by line."""


def front_figure(
    trials: Sequence[Point],
    points: Sequence[Point],
    chosen: Run | None,
    names: tuple[str, str],
    about: About,
    is_joined: bool = True,
) -> Figure:
    """Every completed trial as a dot, the front's joined and the chosen one marked.

    Args:
        trials: with both metrics, those of the front among them.
        points: of the front.
        chosen: the trial that is exported.
        names: metrics, up the page and across it.
        about: see `About`.
        is_joined: whether a line goes through the front; with a third objective it would jump.
    """
    up, across = names
    ordered = sorted(points, key=lambda point: point.values[across])
    marked = [point for point in ordered if chosen is not None and point.run.key == chosen.key]
    data = [
        _dots(trials, names, about, "every trial", {"color": GREY, "size": 7, "opacity": 0.6}),
        {
            **_dots(ordered, names, about, "the front", {"color": BLUE, "size": 10}),
            "mode": "lines+markers" if is_joined else "markers",
            "line": {"color": BLUE, "width": 2},
        },
        _dots(marked, names, about, "exported",
              {"color": ORANGE, "size": 15, "symbol": "diamond", "line": {"color": INK, "width": 1}}),
    ]  # fmt: skip
    return figure(
        [trace for trace in data if trace["x"]],
        xaxis={"title": {"text": plain(axis_title(across)), "standoff": 8}, "rangemode": "tozero"},
        yaxis={"title": {"text": plain(axis_title(up)), "standoff": 8}},
        showlegend=True,
    )


def axis_title(name: str) -> str:
    """`size (bytes)`, `top1 (%)`."""
    unit = MEASURED[name].unit
    return f"{name} ({unit})" if unit and unit != "%" else metric_title(name)


def _dots(
    points: Sequence[Point], names: tuple[str, str], about: About, name: str, marker: dict[str, Any]
) -> dict[str, Any]:
    up, across = names
    return {
        "type": "scatter", "mode": "markers", "name": name, "marker": marker, "hoverinfo": "text",
        "x": [point.values[across] for point in points],
        "y": [point.values[up] for point in points],
        "text": ["<br>".join(map(plain, about(point.run))) for point in points],
    }  # fmt: skip
