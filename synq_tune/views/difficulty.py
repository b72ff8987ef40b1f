"""How hard the teacher finds an image (SynQ, Eq. 3)."""

from __future__ import annotations

from torch import Tensor


def difficulty(teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """δ = 1 - p_teacher(label) (Eq. 3), (N,) in [0, 1]."""
    return 1.0 - teacher_logits.float().softmax(1).gather(1, labels[:, None])[:, 0]
