"""The uniform affine grid every quantizer here uses, as free functions.

Codes are signed: `-2^(k-1) … 2^(k-1) - 1`. A real value is `(code + zero_point) * scale`, so the
`zero_point` has the opposite sign of ONNX's. Zero is always exactly representable.
"""

from __future__ import annotations

import torch
from torch import Tensor


def code_limits(bits: int) -> tuple[int, int]:
    """Smallest and largest signed code of `bits`."""
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def affine_parameters(low: Tensor, high: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Scale and zero point of the range [low, high].

    s = (2^k - 1) / max(high - low, 1e-8) and zero_point = round(s * low) + 2^(k-1); the scale
    returned is 1/s. Because the zero point is rounded, one end may be clipped by up to one step.

    Args:
        low: any shape, smallest value per tensor or channel.
        high: same shape.
        bits: k.

    Returns:
        scale and zero_point (integers as floats), both float32 of that shape.
    """
    scale = (high - low).clamp_min(1e-8) / (2**bits - 1)
    return scale, torch.round(low / scale) + 2 ** (bits - 1)


def quantize(x: Tensor, scale: Tensor, zero_point: Tensor, bits: int) -> Tensor:
    """Integer codes of `x` as floats: clamp(round(x / scale - zero_point))."""
    return torch.round(x / scale - zero_point).clamp_(*code_limits(bits))


def dequantize(codes: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Real values of codes: (code + zero_point) * scale."""
    return (codes + zero_point) * scale


def per_channel(values: Tensor, like: Tensor) -> Tensor:
    """View (O,) so that it broadcasts over a weight (O, …)."""
    return values.view(-1, *[1] * (like.dim() - 1))
