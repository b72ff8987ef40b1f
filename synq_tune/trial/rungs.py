"""Which epochs of a trial are evaluated: ASHA's rungs, or what the space says."""

from __future__ import annotations

import math
from collections.abc import Callable

from synq_tune.config import StudySpec

REDUCTION_FACTOR = 3
"""ASHA keeps the best third at each rung."""


def grace_epochs(epochs: int) -> int:
    """First rung: a ninth of the epochs, so that the rungs are about 1/9 and 1/3."""
    return max(1, math.ceil(epochs / REDUCTION_FACTOR**2))


def is_evaluated(spec: StudySpec, epochs: int) -> Callable[[int], bool]:
    """Which epochs (from 1) are evaluated: every n-th, or ASHA's rungs and the last."""
    every = spec.study.eval_every
    if every != "auto":
        return lambda epoch: epoch % every == 0 or epoch == epochs
    grace = grace_epochs(epochs)
    rungs = {grace, grace * REDUCTION_FACTOR, epochs}
    return rungs.__contains__
