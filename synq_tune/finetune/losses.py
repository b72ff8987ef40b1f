"""The losses of fine-tuning, as free functions of tensors (SynQ, Eq. 2, 3, 5, 6)."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    reduction: Literal["batchmean", "mean"] = "batchmean",
) -> Tensor:
    """T² · KL(teacher ‖ student) at temperature T, averaged over the batch.

    Args:
        student_logits: (N, K), differentiated through.
        teacher_logits: (N, K).
        temperature: T > 0; T² keeps the gradient's size as T changes.
        reduction: over classes, `batchmean` sums and `mean` averages (GDFQ's code).

    Returns:
        Scalar, non-negative.
    """
    student = F.log_softmax(student_logits / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits / temperature, dim=1)
    kl = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return temperature**2 * kl / (student.shape[1] if reduction == "mean" else 1)


def gap_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T² · (ln K - H(softmax((z_t - z_s) / T))), averaged over the batch (AdaSG, AdaDFQ).

    It is least, 0, where the logits differ by the same number for every class. The papers leave ln K
    out, which no gradient sees. Arguments as in `distillation_loss`.
    """
    gap = ((teacher_logits - student_logits) / temperature).log_softmax(1)
    entropy = -(gap.exp() * gap).sum(1)
    return temperature**2 * (math.log(gap.shape[1]) - entropy).mean()


def masked_cross_entropy(
    student_logits: Tensor,
    labels: Tensor,
    difficulties: Tensor,
    tau: float | None,
    strict: bool = False,
    harder: Tensor | None = None,
) -> Tensor:
    """Cross-entropy with the hard labels of the samples the teacher finds easy (Eq. 6).

    Harder samples contribute nothing, or the cross-entropy with `harder`; the sum is divided by the
    batch size N, not by the number of easy samples.

    Args:
        student_logits: (N, K), differentiated through.
        labels: (N,), class indices in [0, K), or (N, K), shares of the classes.
        difficulties: (N,) in [0, 1].
        tau: threshold in [0, 1]; None keeps every sample.
        strict: keep δ < τ (released code) instead of δ ≤ τ.
        harder: (N, K), shares of the classes that samples above τ are asked for instead.

    Returns:
        Scalar, non-negative; 0 with its graph kept when no sample is easy.
    """
    per_sample = F.cross_entropy(student_logits, labels, reduction="none")
    if tau is None:
        return per_sample.mean()
    easy = difficulties < tau if strict else difficulties <= tau
    if harder is None:
        return (per_sample * easy).mean()
    soft = F.cross_entropy(student_logits, harder, reduction="none")
    return torch.where(easy, per_sample, soft).mean()


def cam_loss(student_maps: Tensor, teacher_maps: Tensor, reduction: str = "mean") -> Tensor:
    """Squared difference of saliency maps, averaged over the batch (Eq. 5).

    Args:
        student_maps: (N, H, W), differentiated through.
        teacher_maps: (N, H, W).
        reduction: over a map's cells, `sum` (squared Frobenius norm) or `mean`.
    """
    squared = (student_maps - teacher_maps).square().flatten(1)
    return (squared.sum(1) if reduction == "sum" else squared.mean(1)).mean()


def feature_loss(student_maps: list[Tensor], teacher_maps: list[Tensor]) -> Tensor:
    """Channel-attention alignment (FA of HAST): Σ over blocks of the mean squared difference.

    A block's attention is mean_hw(A²) of each channel, L2-normalised over channels.

    Args:
        student_maps: (N, C, H, W) per residual block, differentiated through.
        teacher_maps: the teacher's, same shapes.
    """
    return sum(
        (_channel_attention(s) - _channel_attention(t)).square().mean()
        for s, t in zip(student_maps, teacher_maps, strict=True)
    )


def _channel_attention(maps: Tensor) -> Tensor:
    return F.normalize(maps.square().mean((2, 3)), dim=1)
