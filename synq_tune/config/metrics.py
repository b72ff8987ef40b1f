"""What a student is measured by: how right it is, what it costs, and what a study maximises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Chosen = Literal["auto", "top1", "agreement", "holdout_kl", "holdout_mse"]
"""What `study.metric` may ask for: `auto`, or a metric of the table."""
Objective = Literal["auto", "top1", "agreement", "holdout_kl", "holdout_mse", "size", "bops"]
"""What `study.objectives` may name: those, and costs."""


@dataclass(frozen=True)
class Metric:
    """One number that a student has."""

    name: str
    heading: str
    """Of its column."""
    unit: str
    """`%` where it is a share of images that are right; empty for a plain number."""
    text_format: str
    """How a table writes it."""
    is_lower_better: bool
    is_always_summarized: bool
    """Whether `summary.json` has it in every study; else in those that choose by it."""


METRICS = {
    metric.name: metric
    for metric in (
        Metric("top1", "top1 %", "%", ".2f", False, True),
        Metric("agreement", "agree %", "%", ".2f", False, True),
        Metric("holdout_kl", "kl", "nats", ".4f", True, True),
        Metric("holdout_mse", "mse", "", ".4f", True, False),
    )
}
"""In the order in which tables show them: top1 and agreement in percent; the divergence (nats) and
the squared distance of student's and teacher's logits on held-out images."""

COSTS = {
    metric.name: metric
    for metric in (
        Metric("size", "bytes", "bytes", ",.0f", True, True),
        Metric("bops", "bit ops", "bit operations", ".3e", True, True),
    )
}
"""What a student takes, which follows from its widths alone: bytes of all weights' codes, packed
(scales, biases and BatchNorms come on top), and the sum of multiplications · weight bits · value
bits of one image, float counting 32. Only studies whose trials differ in width have them."""

MEASURED = {**METRICS, **COSTS}
"""All that a run may have, in the order in which tables show it."""


def auto_metric(asked: str, has_labels: bool) -> str:
    """The metric that `study.metric` stands for: `auto` is top1 with labels, else agreement."""
    if asked != "auto":
        return asked
    return "top1" if has_labels else "agreement"


def is_lower_better(metric: str) -> bool:
    """Whether less of a metric is better."""
    return metric in MEASURED and MEASURED[metric].is_lower_better


def mode_of(metric: str) -> Literal["max", "min"]:
    """Which end of a metric is the good one."""
    return "min" if is_lower_better(metric) else "max"


def objective(metrics: Mapping[str, float], metric: str) -> float | None:
    """The number to maximise; None where the metric was not measured."""
    value = metrics.get(metric)
    return -value if value is not None and is_lower_better(metric) else value


def settled(value: float, metric: str) -> float:
    """The value without what rounding left of it: shares of right images are equal or far apart.

    885 of 896 images is one accuracy, whichever order a mean was taken in; the nearest other share
    of 50,000 images over 1,000 seeds is 2e-6 percent away.
    """
    is_share = metric in METRICS and METRICS[metric].unit == "%"
    return round(value, 7) if is_share else value
