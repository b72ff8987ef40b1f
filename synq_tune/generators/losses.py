"""What a generator is trained to lower: a weighted sum of terms, each a function of the answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from synq_tune.config.generator_source import GeneratorSourceSettings


@dataclass(frozen=True)
class Answers:
    """What the networks say about a batch of generated images, with the graph to it."""

    teacher: Tensor
    """Logits (N, K)."""
    student: Tensor | None
    """Logits (N, K); None where no term reads them."""
    target: Tensor
    """(N,) class indices, or (N, K) shares of the classes."""
    gaps: Tensor | None
    """(L,) distances to the teacher's statistics; None where they have no weight."""
    band: tuple[float, float]
    """Ends of the entropy band."""


def cross_entropy(answers: Answers) -> Tensor:
    """CE of the teacher with what was asked for (GDFQ)."""
    return F.cross_entropy(answers.teacher, answers.target)


def statistics(answers: Answers) -> Tensor:
    """Mean over layers of the distance to BatchNorm statistics (GDFQ)."""
    return answers.gaps.mean()


def disagreement(answers: Answers) -> Tensor:
    """CE of z_t - z_s: classes that the teacher knows and the student does not (AdaSG)."""
    return F.cross_entropy(answers.teacher - answers.student, answers.target)


def agreement(answers: Answers) -> Tensor:
    """CE of z_t + z_s: classes that both know (AdaSG)."""
    return F.cross_entropy(answers.teacher + answers.student, answers.target)


def entropy_band(answers: Answers) -> Tensor:
    """mean ReLU(low - h) + mean ReLU(h - high) of h, the entropy of softmax(z_t - z_s) (AdaDFQ).

    h is moved and scaled so that 0 is the batch's least entropy and 1 that of a uniform answer.
    """
    low, high = answers.band
    gap = (answers.teacher - answers.student).log_softmax(1)
    entropy = -(gap.exp() * gap).sum(1)
    least, most = entropy.min(), math.log(gap.shape[1])
    # A batch of uniform answers would divide by zero.
    share = (entropy - least) / (most - least).clamp_min(1e-6)
    return (low - share).relu().mean() + (share - high).relu().mean()


TERMS: dict[str, Callable[[Answers], Tensor]] = {
    "ce": cross_entropy,
    "bns": statistics,
    "disagreement": disagreement,
    "agreement": agreement,
    "band": entropy_band,
}
"""Name → term; its weight is the setting `generator_NAME`."""
OF_STUDENT = frozenset({"disagreement", "agreement", "band"})
"""Terms that look at the student."""


def weights(config: GeneratorSourceSettings) -> dict[str, float]:
    """The terms that count, with their weights."""
    every = {name: getattr(config, f"generator_{name}") for name in TERMS}
    return {name: weight for name, weight in every.items() if weight > 0}


def weighted(answers: Answers, shares: dict[str, float]) -> Tensor:
    """The total first, then each weighted term in order of `shares`, with their graph."""
    parts = [weight * TERMS[name](answers) for name, weight in shares.items()]
    return torch.stack([sum(parts), *parts])
