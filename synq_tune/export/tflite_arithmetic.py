"""How LiteRT's two families of integer kernels round an accumulator to a code, to the bit.

`fixed`: built-in kernels, microcontrollers, most accelerators. The factor is a 31-bit integer m and a shift
e, factor = m · 2^(e - 31); a doubling high multiply rounds, and a right shift rounds once more.
`float`: XNNPACK, the default on processors. The accumulator times the factor in float32, rounded to the
nearest code, half to even.

Everything is int64 or float64 tensors that hold whole numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Family = Literal["fixed", "float"]
FAMILIES: tuple[Family, ...] = ("fixed", "float")


def fixed_factor(factor: float) -> tuple[int, int]:
    """(m, e) of a factor: m · 2^(e - 31), 2^30 <= m < 2^31; (0, 0) for what is next to nothing."""
    if factor == 0:
        return 0, 0
    mantissa, exponent = math.frexp(factor)
    whole = math.floor(mantissa * 2**31 + 0.5)
    if whole == 2**31:
        whole, exponent = whole // 2, exponent + 1
    return (0, 0) if exponent < -31 else (whole, exponent)


def doubling_high(a: Tensor, m: Tensor | int) -> Tensor:
    """a · m / 2^31, rounded to nearest, half away from zero, as int64."""
    product = a.long() * m
    nudge = torch.where(product >= 0, 2**30, 1 - 2**30)
    return torch.div(product + nudge, 2**31, rounding_mode="trunc")


def rounding_shift(x: Tensor, shift: Tensor | int) -> Tensor:
    """x / 2^shift, rounded to nearest, half away from zero."""
    shift = torch.as_tensor(shift, dtype=torch.int64)
    mask = (torch.ones_like(shift) << shift) - 1
    rest = x & mask
    return (x >> shift) + (rest > (mask >> 1) + (x < 0)).long()


def fixed_scaled(x: Tensor, factors: Sequence[float]) -> Tensor:
    """x · factor by the `fixed` family; one factor, or one for each entry of the last axis."""
    pairs = [fixed_factor(float(factor)) for factor in factors]
    m, e = (torch.tensor(values, dtype=torch.int64) for values in zip(*pairs, strict=True))
    m, e = (m[0], e[0]) if len(pairs) == 1 else (m, e)
    return rounding_shift(doubling_high(x.long() << e.clamp_min(0), m), (-e).clamp_min(0))


def once_scaled(x: Tensor, factors: Sequence[float]) -> Tensor:
    """x · factor by the `fixed` family's linear layers, which round once, half up."""
    pairs = [fixed_factor(float(factor)) for factor in factors]
    m, e = (torch.tensor(values, dtype=torch.int64) for values in zip(*pairs, strict=True))
    half = torch.ones_like(e) << (30 - e)
    return (x.long() * m + half) >> (31 - e)


def float_scaled(x: Tensor, factors: np.ndarray) -> Tensor:
    """x · factor by the `float` family; factors are float32."""
    scale = torch.from_numpy(np.asarray(factors, np.float32))
    return (x.to(torch.float32) * scale).clamp(-1e6, 1e6).round().long()


def scaled(x: Tensor, family: Family, single: np.ndarray, double: np.ndarray) -> Tensor:
    """x · factor; each family computes the factor in its own precision."""
    factors = np.atleast_1d(double if family == "fixed" else single)
    if family == "fixed":
        return fixed_scaled(x, factors.tolist())
    return float_scaled(x, factors if len(factors) > 1 else factors[0])


def half_away(x: Tensor) -> Tensor:
    """Rounded to nearest, half away from zero, in the precision of `x`."""
    return torch.trunc(x + torch.copysign(torch.full_like(x, 0.5), x))


def fixed_hard_swish(x: Tensor, in_scale: np.float32, out_scale: np.float32) -> Tensor:
    """x · relu6(x + 3) / 6 by the `fixed` family, in 16 bits; `x` without its zero point."""
    fine = x << 7
    unit = np.float32(in_scale) / np.float32(128)
    to_out, out_shift = _short_factor(float(unit / out_scale))
    to_gate, gate_shift = _short_factor(float(unit / np.float32(3 / 32768)))
    gate = _short(fine << max(gate_shift - 1, 0)) if gate_shift > 0 else fine
    gate = _short_high(gate, to_gate)
    gate = _short(gate << 1) if gate_shift > 0 else rounding_shift(gate, -gate_shift)
    gate = (gate + 2**15) >> 1
    product = _short(torch.div(gate * _short_high(fine, to_out), 2**15, rounding_mode="trunc"))
    return rounding_shift(product, -out_shift)


def _short(x: Tensor) -> Tensor:
    return x.clamp(-(2**15), 2**15 - 1)


def _short_factor(factor: float) -> tuple[int, int]:
    m, e = fixed_factor(factor)
    return (2**15 - 1 if m >= 2**31 - 1 - 2**15 else (m + 2**15) >> 16), e


def _short_high(a: Tensor, m: int) -> Tensor:
    """a · m / 2^15, rounded to nearest, half away from zero."""
    product = a * m
    nudge = torch.where(product >= 0, 2**14, 1 - 2**14)
    return torch.div(product + nudge, 2**15, rounding_mode="trunc")
