"""From a fresh student to one that training can start with: the one order of its steps."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from synq_tune.config import FineTune
from synq_tune.quantization.clipping import clip_weights, mask_gradients, narrow_ranges
from synq_tune.quantization.norms import correct_norms
from synq_tune.quantization.student import calibrate


def fit_ranges(student: nn.Module, config: FineTune, bits: int, batches: Iterable[Tensor]) -> None:
    """Clip weights and correct BatchNorms where the recipe asks for it, calibrate, narrow the ranges.

    The student is changed in place.

    Args:
        student: fresh from `quantize_student`.
        config: `clip_weights`, `correct_norms` and `range_share`.
        bits: of the widest ranges of values that are narrowed.
        batches: normalised images (N, C, H, W) to calibrate on.

    Raises:
        ValueError: there is no batch.
    """
    if config.clip_weights:
        clip_weights(student)
    if config.correct_norms:
        batches = list(batches)
        correct_norms(student, batches)
    calibrate(student, batches)
    narrow_ranges(student, config.range_share, bits)


def make_ready(student: nn.Module, config: FineTune, bits: int, batches: Iterable[Tensor]) -> None:
    """`fit_ranges`, and gradients as the recipe's ranges want them; arguments as there."""
    fit_ranges(student, config, bits, batches)
    let_through(student, config, bits)


def let_through(student: nn.Module, config: FineTune, bits: int) -> None:
    """Mask the gradients of values that narrowed ranges clip; also where ranges are restored."""
    if config.range_share < 1:
        mask_gradients(student, bits)
