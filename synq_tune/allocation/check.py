"""Whether what is predicted of an assignment ranks assignments as measuring them does."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from synq_tune.allocation.costs import Budget, keeps
from synq_tune.allocation.network import WIDTHS, Assignment, Key, Network, bits_of
from synq_tune.allocation.sensitivity import calibrated
from synq_tune.allocation.solver import Losses, predicted
from synq_tune.process.progress import progress_bar
from synq_tune.trial.assets import Assets


@dataclass(frozen=True)
class Measured:
    """One assignment, calibrated and neither reconstructed nor trained."""

    predicted: float
    """Sum of single divergences, in nats."""
    metrics: Mapping[str, float]
    """`holdout_kl` in nats, `agreement` and where labels are given `top1`, in percent."""


def random_assignments(
    network: Network,
    keys: Sequence[Key],
    budget: Budget,
    count: int,
    seed: int,
    widths: Sequence[int] = WIDTHS,
) -> Iterator[dict[Key, int]]:
    """Assignments that keep a budget which the narrowest one keeps.

    Each key draws a width; then keys drawn at random are narrowed by one step until all costs fit.
    """
    draw, steps = random.Random(seed), sorted(widths)
    for _ in range(count):
        bits = {**network.uniform, **{key: draw.choice(steps) for key in keys}}
        while not keeps(network, bits, budget):
            key = draw.choice([key for key in keys if bits[key] > steps[0]])
            bits[key] = steps[steps.index(bits[key]) - 1]
        yield bits


def measure(
    assets: Assets, network: Network, losses: Losses, assignments: Sequence[Assignment]
) -> list[Measured]:
    """Calibrate each assignment and compare it with the teacher, and with labels if there are any.

    Raises:
        NonFiniteError: a logit or a range is NaN or infinite.
    """
    rows = []
    with progress_bar(len(assignments), "measured assignments", unit="assignment") as bar:
        for bits in assignments:
            student = calibrated(assets, bits_of(assets.spec.bits, network, bits))
            metrics = assets.evaluate(student, is_last=False)
            rows.append(Measured(predicted(losses, bits), metrics))
            bar.update()
    return rows


def rank_correlation(rows: Sequence[Measured], metric: str) -> float:
    """Spearman's ρ of what is predicted and a measured metric, -1 to 1; NaN where one is constant."""
    from scipy.stats import spearmanr

    pairs = [(row.predicted, row.metrics[metric]) for row in rows]
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)
