"""The part of a channel's range in which rounding costs least."""

from __future__ import annotations

import torch
from torch import Tensor

from synq_tune.quantization.affine import affine_parameters, dequantize, quantize

_SHARES = torch.linspace(1.0, 0.3, 29)


def mse_range(rows: Tensor, low: Tensor, high: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Of 29 shares of each range, both ends shrunk alike, the one with the least squared error.

    Args:
        rows: (O, n), float.
        low: (O, 1), lower end of each row's range.
        high: (O, 1), upper end.
        bits: of the affine grid that a range gives.

    Returns:
        Lower and upper ends, each (O, 1).
    """
    best, least = torch.ones_like(low), torch.full_like(low, torch.inf)
    for share in _SHARES.tolist():
        grid = affine_parameters(low * share, high * share, bits)
        rounded = dequantize(quantize(rows, *grid, bits), *grid)
        error = (rounded - rows).square().sum(1, keepdim=True)
        best = torch.where(error < least, share, best)
        least = torch.minimum(error, least)
    return low * best, high * best


def least_error_clip(rows: Tensor, bits: int) -> Tensor:
    """Rows (O, n) clipped to the share of their min-max range that has the least squared error."""
    low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    return torch.clamp(rows, *mse_range(rows, low, high, bits))
