"""The Pareto front of some points, and its knee: plain numbers, of which more is better."""

from __future__ import annotations

from collections.abc import Sequence

Values = Sequence[float]
"""One point: a number for each objective, the larger the better."""


def non_dominated(points: Sequence[Values]) -> list[int]:
    """Positions of the points that no other beats, in their order.

    One beats another where it is nowhere worse and somewhere better. Of equal points the first
    stays.
    """
    order = sorted(range(len(points)), key=lambda n: ([-value for value in points[n]], n))
    kept: list[int] = []
    for here in order:  # whatever beats a point stands before it
        if not any(_covers(points[other], points[here]) for other in kept):
            kept.append(here)
    return sorted(kept)


def _covers(one: Values, other: Values) -> bool:
    """Whether one beats the other, or equals it."""
    return all(a >= b for a, b in zip(one, other, strict=True))


def knee(front: Sequence[Values]) -> int:
    """Position of the knee of a front of at least one point.

    Each objective is brought to [0, 1], from the front's worst to its best; the knee has the
    largest sum. With two objectives that is the point farthest from the chord between the ends, on
    the good side (Das, 1999, On characterizing the "knee" of the Pareto curve): the ends are (1, 0)
    and (0, 1), and the chord is where the sum is 1. Equal sums go to the better first objective: a
    single point is the knee, and of two it is the better in the first.
    """
    scaled = list(zip(*map(_to_unit, zip(*front, strict=True)), strict=True))
    # Sums of what is rounded: two ends shall tie.
    return max(range(len(front)), key=lambda n: (round(sum(scaled[n]), 9), front[n][0]))


def _to_unit(values: Values) -> list[float]:
    """The values of one objective in [0, 1]; all 0 where they are equal, which prefers none."""
    low, high = min(values), max(values)
    return [(value - low) / (high - low) if high > low else 0.0 for value in values]
