"""Ranges of activations, seen only inside `calibrate`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from synq_tune.quantization.affine import affine_parameters, code_limits
from synq_tune.quantization.primitives import on_grid

DECAY = 0.9
_MOST_VALUES, _SAMPLED = 2**22, 2**20


class MovingAverageMinMaxObserver(nn.Module):
    """Bias-corrected moving average of a batch's range: r_raw ← 0.9 r_raw + 0.1 x; r = r_raw / (1 -
    0.9^t).

    The raw state and the corrected value are kept apart: dividing the state itself, as the released
    code does, blows a constant range up by three orders of magnitude within 20 batches.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("raw", torch.zeros(2))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, low: Tensor, high: Tensor) -> None:
        """Take one batch's smallest and largest value into account."""
        self.raw.mul_(DECAY).add_(torch.stack((low, high)).float(), alpha=1 - DECAY)
        self.steps += 1

    def forget(self) -> None:
        """Begin anew."""
        self.raw.zero_()
        self.steps.zero_()

    def range(self) -> tuple[Tensor, Tensor]:
        """(low, high) so far; the range always contains zero."""
        low, high = self.raw / (1 - DECAY ** self.steps.clamp_min(1).to(self.raw.dtype))
        return low.clamp_max(0.0), high.clamp_min(0.0)


def min_max(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Smallest and largest value of `x`, scalars."""
    return torch.aminmax(x)


def _sample(x: Tensor) -> Tensor:
    """`x`, or about a million of its values where there are many, evenly spaced.

    A layer's values for 16 images of 224 px are 19 million, which 20 ranges would be tried on.
    """
    if x.numel() <= _MOST_VALUES:
        return x
    step = -(-x.numel() // _SAMPLED) | 1  # odd: rows of an even width are not met at one column
    return x.flatten()[::step]


def symmetric_scale(largest: Tensor, bits: int) -> Tensor:
    """The step of a grid around zero point 0 that reaches `largest`, on its shorter, upper side."""
    return (largest / code_limits(bits)[1]).clamp_min(1e-8)


def symmetric_least_squares(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(-m, m) for the m with the smallest squared rounding error, of 20 tried, at zero point 0.

    Of a large `x` the error is that of a sample.
    """
    largest = torch.linalg.vector_norm(x.flatten(), ord=torch.inf)
    x, zero = _sample(x), torch.zeros_like(largest)
    best, best_error = largest, torch.inf
    for shrink in torch.linspace(1.0, 0.24, 20).tolist():
        grid = symmetric_scale(largest * shrink, bits), zero
        error = on_grid(x, *grid, code_limits(bits)).sub_(x).square_().mean()
        if error < best_error:
            best, best_error = largest * shrink, error
    return -best, best


def least_squares(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The shrunk min-max range with the smallest squared rounding error, of 20 tried.

    Of a large `x` the error is that of a sample.
    """
    low, high = min_max(x, bits)
    x = _sample(x)
    best, best_error = (low, high), torch.inf
    for shrink in torch.linspace(1.0, 0.24, 20).tolist():
        grid = affine_parameters(low * shrink, high * shrink, bits)
        error = on_grid(x, *grid, code_limits(bits)).sub_(x).square_().mean()
        if error < best_error:
            best, best_error = (low * shrink, high * shrink), error
    return best
