"""What is drawn from runs: their numbers by row, as plots take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from synq_tune.experiments.compare_table import Row

Runs = dict[str, dict[str, list[Row]]]
"""Column → row → its completed runs, by seed."""
Drawn = tuple[list[dict[str, Any]], list[Any]]
"""The rows behind a figure, and its plots."""
TOP1 = "top-1 (%)"


@dataclass(frozen=True)
class Point:
    """What the runs of one row have in common."""

    mean: float
    std: float
    """0 of a single run."""
    seeds: tuple[int, ...]


def point(rows: Sequence[Row], key: str) -> Point | None:
    """Mean and standard deviation of a number; None without a run."""
    if not rows:
        return None
    values = [row[key] for row in rows]
    seeds = tuple(row["seed"] for row in rows)
    return Point(fmean(values), stdev(values) if len(values) > 1 else 0.0, seeds)


def point_row(column: str, name: str, found: Point, **more: Any) -> dict[str, Any]:
    """A point as a line of the file behind the figure."""
    about: Mapping[str, Any] = {"column": column, "row": name, **more}
    return {**about, "mean": found.mean, "std": found.std, "seeds": list(found.seeds)}
