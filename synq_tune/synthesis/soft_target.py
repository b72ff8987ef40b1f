"""Images that the teacher need not be certain of (IntraQ's soft inception loss)."""

from __future__ import annotations

import torch
from torch import Tensor

from synq_tune.synthesis.focal import remainder_weight


def draw_targets(count: int, least: float, generator: torch.Generator) -> Tensor:
    """Probabilities (count,) on the CPU: 1 for about half of the images, the others uniform in
    [least, 1]."""
    is_soft = torch.rand(count, generator=generator) < 0.5
    drawn = least + (1 - least) * torch.rand(count, generator=generator)
    return torch.where(is_soft, drawn, 1.0)


def soft_target_loss(logits: Tensor, labels: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """mean_i (1 - p_label)^γ · (p_label - target)².

    Args:
        logits: (N, K), the teacher's.
        labels: (N,) int64.
        targets: (N,), the probabilities to reach.
        gamma: ≥ 0; 0 weighs all images alike, as IntraQ does.
    """
    certainty = logits.softmax(1).gather(1, labels[:, None])[:, 0]
    squares = (certainty - targets).square()
    return (squares if gamma == 0 else remainder_weight(1 - certainty, gamma) * squares).mean()
