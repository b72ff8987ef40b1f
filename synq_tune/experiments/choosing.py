"""Does choosing without labels work? How well a metric ranks finished trials, against their top1.

A trial is read from a study's ledger, from a line of `scripts/compare.py`, or from one of a
recorded grid. Every number a trial has beside `top1` is judged as if a study had chosen by it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from synq_tune.config import metrics
from synq_tune.config.metrics import METRICS
from synq_tune.errors import InputError
from synq_tune.study.ledger import Ledger
from synq_tune.study.state import Run
from synq_tune.text_table import markdown

REFERENCE = "top1"
_FIRST = tuple(name for name in METRICS if name != REFERENCE)
"""What is tabled first; `agreement` is the rule of a study without labels."""
_NOT_METRICS = (
    "seed",
    "number",
    "epoch",
    "epochs",
    "epochs_run",
    "updates",
    "images_seen",
    "seconds",
)
_DISTANCES = ("_kl", "_mse", "_loss", "_error", "_distance")
_NOTHING = "–"
DRAWN = 16
"""Trials of a small study."""


@dataclass(frozen=True)
class Measured:
    """One trial, its numbers those of the last evaluated epoch."""

    name: str
    state: str
    metrics: dict[str, float]

    @property
    def is_completed(self) -> bool:
        """Whether a study could choose it."""
        return self.state == "completed" and REFERENCE in self.metrics

    def signed(self, metric: str) -> float:
        """The metric, negated where less is better."""
        return -self.metrics[metric] if is_lower_better(metric) else self.metrics[metric]


def is_lower_better(metric: str) -> bool:
    """Whether a metric of this name is a distance or a loss."""
    return metrics.is_lower_better(metric) or metric.endswith(_DISTANCES)


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's rank correlation in [-1, 1]; equal values share their average rank.

    Args:
        x: finite numbers.
        y: as many.

    Returns:
        None where it is not defined: fewer than three pairs, or all values of one side equal.

    Raises:
        ValueError: the lengths differ.
    """
    if len(x) != len(y):
        raise ValueError(f"`len(x) == len(y)` must hold, but got {len(x)} and {len(y)}.")
    if len(x) < 3 or len(set(x)) == 1 or len(set(y)) == 1:
        return None
    return float(np.corrcoef(_ranks(x), _ranks(y))[0, 1])


def _ranks(values: Sequence[float]) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def chosen(trials: Sequence[Measured], metric: str) -> Measured | None:
    """The completed trial that is best by a metric; ties go to the lower `holdout_kl`, then the
    first.

    None where no completed trial has it.
    """
    return max(_candidates(trials, metric), key=_rule(metric), default=None)


def _candidates(trials: Sequence[Measured], metric: str) -> list[Measured]:
    return [trial for trial in trials if trial.is_completed and metric in trial.metrics]


def _rule(metric: str) -> Callable[[Measured], tuple[float, float]]:
    return lambda trial: (trial.signed(metric), -trial.metrics.get("holdout_kl", math.inf))


def lost(trials: Sequence[Measured], metric: str) -> float | None:
    """Points of top1 that choosing by a metric costs: the best completed trial's minus the
    chosen's.

    None where no completed trial has the metric.
    """
    choice = chosen(trials, metric)
    if choice is None:
        return None
    best = max(trial.metrics[REFERENCE] for trial in trials if trial.is_completed)
    return best - choice.metrics[REFERENCE]


def mean_lost(trials: Sequence[Measured], metric: str, drawn: int = DRAWN) -> float | None:
    """Points of top1 that choosing by a metric costs in a study of `drawn` of the completed trials.

    The mean over all ways to draw them, exactly: the one best trial of all is luck. None where
    fewer completed trials have the metric.
    """
    candidates = _candidates(trials, metric)
    if len(candidates) < drawn:
        return None
    return _mean_top1(candidates, REFERENCE, drawn) - _mean_top1(candidates, metric, drawn)


def _mean_top1(trials: Sequence[Measured], metric: str, drawn: int) -> float:
    """Mean top1 of the drawn trial that is best by a metric.

    The trial of rank k, from 0, is it in C(n - 1 - k, drawn - 1) of the C(n, drawn) draws.
    """
    ranked = sorted(trials, key=_rule(metric), reverse=True)
    ways = (math.comb(len(ranked) - 1 - rank, drawn - 1) for rank in range(len(ranked)))
    pairs = zip(ways, ranked, strict=True)
    total = sum(count * trial.metrics[REFERENCE] for count, trial in pairs)
    return total / math.comb(len(ranked), drawn)


def correlation(trials: Sequence[Measured], metric: str) -> tuple[float | None, int]:
    """Spearman's rho of a metric (larger is better) with top1, and of how many trials."""
    both = [t for t in trials if metric in t.metrics and REFERENCE in t.metrics]
    return spearman([t.signed(metric) for t in both], [t.metrics[REFERENCE] for t in both]), len(
        both
    )


def top_quarter(trials: Sequence[Measured]) -> list[Measured]:
    """The quarter of the completed trials, rounded up, that is best by top1."""
    done = [trial for trial in trials if trial.is_completed]
    ranked = sorted(done, key=lambda trial: trial.metrics[REFERENCE], reverse=True)
    return ranked[: math.ceil(len(done) / 4)]


def metrics_of(trials: Sequence[Measured]) -> list[str]:
    """Names of the numbers that every completed trial has beside top1, the study's own first."""
    done = [trial.metrics for trial in trials if trial.is_completed]
    shared = set.intersection(*map(set, done)) if done else set()
    names = sorted(shared - {REFERENCE})
    return [n for n in _FIRST if n in names] + [n for n in names if n not in _FIRST]


def read_trials(path: Path) -> list[Measured]:
    """The trials of a study's folder, or of a file of JSON lines.

    Raises:
        InputError: there is neither, it is damaged, or no completed trial has top1 and another
            metric.
    """
    if not path.exists():
        raise InputError(
            f"{path}: `a study's folder or a file of rows exists` must hold, but "
            "there is neither. Name what scripts/search.py or scripts/compare.py wrote."
        )
    trials = _of_study(path) if path.is_dir() else _of_file(path)
    if not metrics_of(trials):
        raise InputError(
            f"{path}: `completed trials have {REFERENCE} and another metric` must hold, but "
            f"{sum(t.is_completed for t in trials)} of {len(trials)} have {REFERENCE}. Give the study "
            "labelled images with --val-data."
        )
    return trials


def _of_study(folder: Path) -> list[Measured]:
    state = Ledger.open(folder, read_only=True).state
    return [Measured(run.key, run.state, _last(run)) for run in state.of_kind("search")]


def _last(run: Run) -> dict[str, float]:
    """Of the last evaluated epoch, what the summary leaves out included."""
    history = run.history[-1]["metrics"] if run.history else {}
    merged = {**history, **run.metrics}
    return _numbers({k: v for k, v in merged.items() if not k.endswith("_best_epoch")})


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    is_number = {
        k: isinstance(v, (int, float)) and not isinstance(v, bool) for k, v in values.items()
    }
    return {k: float(v) for k, v in values.items() if is_number[k] and k not in _NOT_METRICS}


def _of_file(path: Path) -> list[Measured]:
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [_parse(path, number, line) for number, line in enumerate(lines, start=1)]
    # A recorded grid says first how it was made; its baselines are no trials of the search.
    return [_measured(row) for row in rows if "format" not in row and "baseline" not in row]


def _parse(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        row = None
    if not isinstance(row, dict) or not ("state" in row or "format" in row):
        raise InputError(
            f"{path}, line {number}: `the line is one trial, with its state` must hold, but got "
            f"{line[:40]!r}."
        )
    return row


def _measured(row: dict[str, Any]) -> Measured:
    label = row.get("variant") or json.dumps(row.get("params", {}))
    history = row.get("history")
    metrics = history[-1]["metrics"] if history else row
    return Measured(f"{label}, seed {row.get('seed', 0)}", row["state"], _numbers(metrics))


def report(paths: Sequence[Path]) -> Iterator[str]:
    """Markdown: a section per study or file, and what they have in common where there are several.

    Raises:
        InputError: see `read_trials`; nothing was printed.
    """
    studies = {path: read_trials(path) for path in paths}
    for path, trials in studies.items():
        yield from (*_section(path, trials), "")
    if len(studies) > 1:
        yield from (*_together(list(studies.values())), "")
    yield from _LEGEND


_LEGEND = (
    "rho: Spearman's rank correlation with top-1 over trials, ties ranked by their average (number of "
    "trials). The top quarter is taken by top-1.",
    "lost: top-1 of the best completed trial minus that of the chosen one, in points. A study without "
    "labels chooses by agreement, ties by the lower holdout_kl.",
    f"lost of {DRAWN}: the same in a study of {DRAWN} of the completed trials, mean over all ways to draw "
    "them.",
    "stopped trials have the values of their last evaluated epoch, top-1 perhaps of fewer images.",
)


def _section(path: Path, trials: list[Measured]) -> Iterator[str]:
    counts = Counter(trial.state for trial in trials)
    shown = ("completed", "stopped", "diverged")
    others = sorted(set(counts) - set(shown))
    yield f"### {path.resolve().name}"
    yield ", ".join(f"{counts[state]} {state}" for state in (*shown, *others))
    yield ""
    yield from markdown(
        (
            "metric",
            "rho, completed",
            "rho, top quarter",
            "rho, all not diverged",
            "chosen",
            "its top-1 (%)",
            "lost",
            f"lost of {DRAWN}",
        ),
        _rows(trials),
    )


def _rows(trials: list[Measured]) -> Iterator[list[str]]:
    done = [trial for trial in trials if trial.is_completed]
    groups = (done, top_quarter(trials), [t for t in trials if t.state != "diverged"])
    for metric in metrics_of(trials):
        rhos = [_rho(*correlation(group, metric)) for group in groups]
        choice = chosen(trials, metric)
        top1 = choice.metrics[REFERENCE]
        name = f"-{metric}" if is_lower_better(metric) else metric
        losses = (lost(trials, metric), mean_lost(trials, metric))
        yield [name, *rhos, choice.name, f"{top1:.2f}", *map(_points, losses)]
    best = chosen(trials, REFERENCE)
    top1 = best.metrics[REFERENCE]
    mean = fmean(trial.metrics[REFERENCE] for trial in done)
    yield [f"{REFERENCE} (labels)", *[_NOTHING] * 3, best.name, f"{top1:.2f}", "0.00", "0.00"]
    of_drawn = _mean_top1(done, REFERENCE, DRAWN) - mean if len(done) >= DRAWN else None
    losses = map(_points, (top1 - mean, of_drawn))
    yield ["at random (mean)", *[_NOTHING] * 4, f"{mean:.2f}", *losses]


def _together(studies: list[list[Measured]]) -> Iterator[str]:
    yield f"### All {len(studies)}"
    yield ""
    names = dict.fromkeys(name for trials in studies for name in metrics_of(trials))
    heads = ("metric", "studies", "median rho, completed", "mean lost", "largest lost")
    yield from markdown(heads, (_over(studies, name) for name in names))


def _over(studies: list[list[Measured]], metric: str) -> list[str]:
    having = [trials for trials in studies if metric in metrics_of(trials)]
    rhos = [correlation([t for t in trials if t.is_completed], metric)[0] for trials in having]
    known = [rho for rho in rhos if rho is not None]
    losses = [lost(trials, metric) for trials in having]
    name = f"-{metric}" if is_lower_better(metric) else metric
    rho = f"{median(known):.2f}" if known else _NOTHING
    return [name, str(len(having)), rho, f"{fmean(losses):.2f}", f"{max(losses):.2f}"]


def _points(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.2f}"


def _rho(value: float | None, count: int) -> str:
    return f"{_NOTHING if value is None else f'{value:.2f}'} ({count})"
