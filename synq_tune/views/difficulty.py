"""How hard the teacher finds an image (SynQ, Eq. 3), or how unsure it is of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def difficulty(teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """δ = 1 - p_teacher(label) (Eq. 3), (N,) in [0, 1].

    Of an image of several classes, 1 - Σ_k min(share_k, p_teacher(k)): the total variation between
    what it was asked to be and what the teacher sees, which is Eq. 3 for one class.

    Args:
        teacher_logits: (N, K).
        labels: (N,) class indices, or (N, K) shares of the classes.
    """
    seen = teacher_logits.float().softmax(1)
    if labels.dim() == 2:
        return (1.0 - torch.minimum(seen, labels).sum(1)).clamp_min(0.0)
    return 1.0 - seen.gather(1, labels[:, None])[:, 0]


def entropy_share(teacher_logits: Tensor) -> Tensor:
    """The entropy of the teacher's answer over ln K, (N,) in [0, 1]: how unsure it is of an image,
    whatever that was made for (after PLF).

    Args:
        teacher_logits: (N, K).
    """
    log = teacher_logits.float().log_softmax(1)
    return (-(log.exp() * log).sum(1) / math.log(log.shape[1])).clamp(0.0, 1.0)
