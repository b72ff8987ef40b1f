"""What a study maximises: its metric, or less of it where less is better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

LOWER_IS_BETTER = ("holdout_kl", "holdout_mse")
"""Metrics that are distances."""


def mode_of(metric: str) -> Literal["max", "min"]:
    """Which end of a metric is the good one."""
    return "min" if metric in LOWER_IS_BETTER else "max"


def objective(metrics: Mapping[str, float], metric: str) -> float | None:
    """The number to maximise; None where the metric was not measured."""
    value = metrics.get(metric)
    return -value if value is not None and metric in LOWER_IS_BETTER else value
