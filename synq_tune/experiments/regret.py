"""The table of `scripts/regret.py`: how far searches end from the best, at equal numbers of
epochs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import get_args

from synq_tune.errors import InputError
from synq_tune.experiments.compare_table import paired_gain
from synq_tune.experiments.grid import BASELINES, Grid, read_grid
from synq_tune.experiments.lookup import METHODS, Method, Metric, replay
from synq_tune.notes import counted
from synq_tune.study.rungs import PAPER
from synq_tune.text_table import markdown

BUNDLED = Path(__file__).parent / "recorded" / "digits_w3a3_grid.jsonl"
BUDGETS = (2, 4, 8, 16, 32)
"""In trials that run to their end."""
TRIALS_PER_FULL = 2.5
"""Trials asked for with early stopping, for each trial that the budget would let run to its end."""
_DRAWS = 300
_LABELS = {"paper": PAPER, "recipe": "the recipe's own values",
           "calibrated": "calibration alone"}  # fmt: skip


@dataclass(frozen=True)
class Searched:
    """One search: where it ended and what it cost."""

    regret: float
    """Points of top1 below the best of the table."""
    epochs: int
    trials: int


def search_once(
    grid: Grid, method: Method, full_trials: int, seed: int, metric: Metric, workers: int = 2
) -> Searched:
    """One search of a budget of `full_trials` times the epochs of a trial.

    A search that completes no trial leaves its user with calibration alone.
    """
    stops_early = method.scheduler == "asha"
    num_trials = round(full_trials * TRIALS_PER_FULL) if stops_early else full_trials
    budget = full_trials * grid.spec.finetune.epochs
    outcome = replay(grid, method, budget, num_trials, seed, metric, workers)
    value = grid.value(outcome.found or "calibrated")
    return Searched(grid.best - value, outcome.epochs, len(outcome.state.runs))


def regret_command(table: Path | None, seeds: int, workers: int) -> Iterator[str]:
    """Lines to print: Markdown, one row per budget and method, as each is ready.

    Args:
        table: recorded; None is the bundled one.
        seeds: searches per budget, method and metric.
        workers: trials at once in each.

    Raises:
        InputError: a number is too small, or the table cannot be read.
    """
    for name, value in {"seeds": seeds, "workers": workers}.items():
        if value < 1:
            raise InputError(f"`--{name} >= 1` must hold, but got {value}.")
    grid = read_grid(table or BUNDLED)
    yield from _about(grid, seeds, workers)
    yield ""
    yield from markdown(["one configuration", "top-1 (%)", "regret"], _baselines(grid))
    yield ""
    heads = ["full trials", "method", "trials", "epochs trained"]
    for metric in get_args(Metric):
        heads += [f"by {metric}: median", "mean [95 %]"]
    rows = (
        [str(full_trials), name, *_row(grid, method, full_trials, seeds, workers)]
        for full_trials in BUDGETS
        for name, method in METHODS.items()
    )
    yield from markdown(heads, rows)


def _row(grid: Grid, method: Method, full_trials: int, seeds: int, workers: int) -> list[str]:
    """Trials and epochs (of the searches by top1), then median and mean regret for each metric."""
    cells = []
    for metric in get_args(Metric):
        found = [
            search_once(grid, method, full_trials, seed, metric, workers) for seed in range(seeds)
        ]
        if not cells:
            cells = [
                f"{fmean(f.trials for f in found):.1f}",
                f"{fmean(f.epochs for f in found):.0f}",
            ]
        cells += summary([f.regret for f in found])
    return cells


def summary(regrets: Sequence[float]) -> list[str]:
    """Median, and mean with Student's t interval, in points."""
    gain = paired_gain([(regret, 0.0) for regret in regrets])
    half = (
        "" if gain.half is None else f" [{gain.mean - gain.half:.2f}, {gain.mean + gain.half:.2f}]"
    )
    return [f"{median(regrets):.2f}", f"{gain.mean:.2f}{half}"]


def _about(grid: Grid, seeds: int, workers: int) -> Iterator[str]:
    epochs = grid.spec.finetune.epochs
    by_agreement = max(grid.keys, key=lambda key: grid.value(key, "agreement") or 0.0)
    yield (
        f"{grid.path.name}: {grid.spec.name}, {counted(len(grid.keys), 'configuration')} × "
        f"{counted(len(grid.seeds), 'seed')} of {counted(epochs, 'epoch')}, recorded on "
        f"{grid.head['machine']}."
    )
    yield (
        f"Best top-1 {grid.best:.2f} % (mean of a configuration's seeds, choosing images); the highest "
        f"agreement has {grid.best - grid.value(by_agreement):.2f} points less."
    )
    yield (
        f"Who trains every configuration once and chooses by top1 still loses {luck(grid):.2f} "
        "points on average: the luck of single runs."
    )
    yield (
        f"Regret: points of top-1 below that best, over "
        f"{counted(seeds, 'search', 'searches')} with {counted(workers, 'trial')} at once. A full "
        f"trial is {counted(epochs, 'epoch')}; a budget is never exceeded."
    )


def luck(grid: Grid) -> float:
    """Mean regret of who has one run of every configuration, of any seed, and takes the best run.

    The best of many noisy values is partly luck; `study.confirm` is there to reduce it.
    """
    generator = random.Random(0)
    values = {key: _last_top1(grid, key) for key in grid.keys}
    taken = []
    for _ in range(_DRAWS):
        runs = {key: generator.choice(last) for key, last in values.items() if last}
        taken.append(max(runs, key=runs.get))
    return fmean(grid.best - grid.value(key) for key in taken)


def _last_top1(grid: Grid, key: str) -> list[float]:
    rows = [grid.row(key, seed) for seed in grid.seeds]
    done = (row for row in rows if row["state"] == "completed")
    return [row["history"][-1]["metrics"]["top1"] for row in done]


def _baselines(grid: Grid) -> Iterator[list[str]]:
    for name in BASELINES:
        value = grid.value(name)
        shown = ["diverged", "–"] if value is None else [f"{value:.2f}", f"{grid.best - value:.2f}"]
        yield [_LABELS[name], *shown]
    values = [value for key in grid.keys if (value := grid.value(key)) is not None]
    middle = median(values)
    yield ["the median of the grid", f"{middle:.2f}", f"{grid.best - middle:.2f}"]
