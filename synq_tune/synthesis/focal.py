"""The hard-sample-enhanced class loss of HAST, SynQ's L_HIL."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def focal_cross_entropy(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """mean_i (1 - p_label)^γ · CE_i; the gradient flows through both factors.

    Args:
        logits: (N, K), the teacher's.
        labels: (N,) int64.
        gamma: ≥ 0; 0 is plain cross-entropy.
    """
    cross_entropy = F.cross_entropy(logits, labels, reduction="none")
    if gamma == 0:
        return cross_entropy.mean()
    return (remainder_weight(-(-cross_entropy).expm1(), gamma) * cross_entropy).mean()


def remainder_weight(remainder: Tensor, gamma: float) -> Tensor:
    """(1 - p_label)^γ of each image, from the remainders 1 - p_label (N,)."""
    # It rounds to 0 for a confident image, where the power's slope is infinite for γ < 1.
    return remainder.clamp_min(1e-12).pow(gamma)
