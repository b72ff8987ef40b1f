"""Accuracy over one setting or two (SynQ, Figures 7, 11 and 13)."""

from __future__ import annotations

from typing import Any

import numpy as np

from synq_tune.experiments.figures.recorded import TOP1, Drawn, Runs, point, point_row
from synq_tune.experiments.paper_figure import Panel, PaperFigure, row_name
from synq_tune.experiments.paper_table import Scale
from synq_tune.report.paper.plots import Curves, Grid, Line

_WIDE = 20.0
"""Ratio of the ends of an axis from which it is logarithmic."""


def draw_sweep(figure: PaperFigure, runs: Runs, scale: Scale) -> Drawn:
    """A plot for each panel and column; points without a run are left out."""
    rows: list[dict[str, Any]] = []
    plots: list[Any] = []
    for column, mine in runs.items():
        for panel in figure.panels:
            title = f"{panel.title}, {column}"
            one = len(panel.sweep) == 1
            made, plot = (_curves if one else _grid)(panel, title, column, mine, scale)
            rows += made
            plots += [plot] if made else []
    return rows, plots


def _curves(panel: Panel, title: str, column: str, mine: Any, scale: Scale) -> tuple[list, Any]:
    ((key, values),) = panel.values_at(scale).items()
    rows, lines = [], []
    for series in panel.series:
        names = {value: row_name(series, {key: value}) for value in values}
        found = {v: point(mine.get(name, []), "top1_report") for v, name in names.items()}
        found = {v: p for v, p in found.items() if p is not None}
        rows += [
            point_row(column, names[v], p, panel=panel.title, setting=key, value=v)
            for v, p in found.items()
        ]
        points = found.values()
        if found:
            lines.append(
                Line(series, list(found), [p.mean for p in points], [p.std for p in points])
            )
    for name in panel.flat:
        flat = point(mine.get(name, []), "top1_report")
        if flat is not None:
            rows.append(point_row(column, name, flat, panel=panel.title, setting=key, value=None))
            lines.append(Line(name, [], [flat.mean], [flat.std]))
    is_log = min(values) > 0 and max(values) / min(values) >= _WIDE
    return rows, Curves(title, _axis(key), TOP1, lines, is_log, marks=True)


def _grid(panel: Panel, title: str, column: str, mine: Any, scale: Scale) -> tuple[list, Any]:
    (x_key, xs), (y_key, ys) = panel.values_at(scale).items()
    (series,) = panel.series
    values, rows = np.full((len(ys), len(xs)), np.nan), []
    for at, y in enumerate(ys):
        for across, x in enumerate(xs):
            name = row_name(series, {x_key: x, y_key: y})
            found = point(mine.get(name, []), "top1_report")
            if found is not None:
                values[at, across] = found.mean
                rows.append(
                    point_row(column, name, found, panel=panel.title, **{x_key: x, y_key: y})
                )
    return rows, Grid(title, _axis(x_key), _axis(y_key), xs, ys, values, TOP1)


_SYMBOLS = {
    "finetune.tau": "τ",
    "finetune.d0": "D0 (bins)",
    "finetune.lambda_ce": "λCE",
    "finetune.lambda_cam": "λCAM",
    "synthesis.num_images": "synthetic images",
}


def _axis(key: str) -> str:
    return _SYMBOLS.get(key, key)
