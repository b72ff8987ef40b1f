"""Ranges of activations, seen only inside `calibrate`."""

from __future__ import annotations

from collections.abc import Callable

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


def least_squares(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The shrunk min-max range with the smallest squared rounding error, of 20 tried.

    Of a large `x` the error is that of a sample.
    """
    low, high = min_max(x, bits)
    share = _best_share(x, bits, lambda s: affine_parameters(low * s, high * s, bits))
    return low * share, high * share


def symmetric_least_squares(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(-m, m) as `least_squares`, on grids with zero point 0."""
    low, high = min_max(x, bits)
    largest = torch.maximum(high, -low)
    zero = torch.zeros_like(largest)
    share = _best_share(x, bits, lambda s: (symmetric_scale(largest * s, bits), zero))
    return -largest * share, largest * share


def symmetric_scale(largest: Tensor, bits: int) -> Tensor:
    """The step of a grid around zero point 0 that reaches `largest`, on its shorter, upper side."""
    return (largest / code_limits(bits)[1]).clamp_min(1e-8)


def _best_share(x: Tensor, bits: int, grid: Callable[[float], tuple[Tensor, Tensor]]) -> float:
    """The share of a range whose grid, scale and zero point, rounds `x` with the least error."""
    x = _sample(x)
    best, best_error = 1.0, torch.inf
    for share in torch.linspace(1.0, 0.24, 20).tolist():
        error = on_grid(x, *grid(share), code_limits(bits)).sub_(x).square_().mean()
        if error < best_error:
            best, best_error = share, error
    return best
