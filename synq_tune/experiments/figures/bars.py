"""A bar a row: its accuracy (SynQ, Figure 6), or what its training takes (Figure 8)."""

from __future__ import annotations

from synq_tune.experiments.figures.recorded import TOP1, Drawn, Runs, point, point_row
from synq_tune.experiments.paper_figure import PaperFigure
from synq_tune.report.paper.plots import Bars


def draw_bars(figure: PaperFigure, runs: Runs) -> Drawn:
    """Accuracies side by side, with their standard deviation; the axis does not begin at 0."""
    rows, plots = [], []
    for column, mine in runs.items():
        found = {name: point(mine.get(name, []), "top1_report") for name in figure.rows}
        found = {name: p for name, p in found.items() if p is not None}
        rows += [point_row(column, name, p) for name, p in found.items()]
        if found:
            heights, half = ([getattr(p, k) for p in found.values()] for k in ("mean", "std"))
            plots.append(Bars(column, TOP1, list(found), heights, half, is_from_zero=False))
    return rows, plots


def draw_overhead(figure: PaperFigure, runs: Runs) -> Drawn:
    """Of the seconds with SynQ, the share that it adds to the method alone.

    Only seeds that both have count, so that both ran as often.
    """
    rows, plots = [], []
    for column, mine in runs.items():
        shares = {}
        for name, row in figure.rows.items():
            pair = _seconds(mine, row.over, name) if row.over else None
            if pair is not None:
                base, whole, seeds = pair
                added = 100.0 * (whole - base) / whole
                shares[row.over] = added
                seconds = {"seconds_baseline": base, "seconds": whole, "seeds": seeds}
                rows.append({"column": column, "row": name, "overhead": added, **seconds})
        if shares:
            label = "added by SynQ (% of the seconds with it)"
            plots.append(Bars(column, label, list(shares), list(shares.values())))
    return rows, plots


def _seconds(mine: dict, base: str, name: str) -> tuple[float, float, list[int]] | None:
    """Mean seconds of a method's runs and of those with SynQ, and the seeds of both."""
    found = [{row["seed"]: row["seconds"] for row in mine.get(n, [])} for n in (base, name)]
    seeds = sorted(found[0].keys() & found[1].keys())
    if not seeds:
        return None
    means = [sum(seconds[seed] for seed in seeds) / len(seeds) for seconds in found]
    return means[0], means[1], seeds
