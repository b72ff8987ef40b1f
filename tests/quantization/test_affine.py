"""The uniform grid: properties, and codes equal to an independent reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from synq_tune.quantization.affine import (
    affine_parameters,
    code_limits,
    dequantize,
    quantize,
)
from synq_tune.quantization.ranges import MovingAverageMinMaxObserver, least_squares

BITS = st.integers(2, 8)
LOWS = st.floats(-10, 0, width=32)
HIGHS = st.floats(0.015625, 10, width=32)


def _grid(low: float, high: float, bits: int) -> tuple[Tensor, Tensor]:
    return affine_parameters(torch.tensor(low), torch.tensor(high), bits)


@given(BITS, LOWS, HIGHS, st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_the_grid_keeps_its_promises(bits: int, low: float, high: float, seed: int) -> None:
    """At most 2^k values, error at most half a step inside, idempotent, monotone, zero exact."""
    scale, zero_point = _grid(low, high, bits)
    x = torch.rand(200, generator=torch.Generator().manual_seed(seed)) * (high - low) + low
    x = x.sort().values
    codes = quantize(x, scale, zero_point, bits)
    value = dequantize(codes, scale, zero_point)
    lowest, highest = code_limits(bits)
    assert codes.unique().numel() <= 2**bits
    assert codes.min() >= lowest and codes.max() <= highest
    inside = (codes > lowest) & (codes < highest)
    assert ((x - value).abs()[inside] <= scale * 0.5 * (1 + 1e-3)).all()
    assert torch.equal(quantize(value, scale, zero_point, bits), codes)
    assert (codes.diff() >= 0).all()
    zero = quantize(torch.zeros(()), scale, zero_point, bits)
    assert dequantize(zero, scale, zero_point) == 0


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_codes_equal_the_published_formula(bits: int) -> None:
    """s = (2^k - 1)/(hi - lo), zp = round(s·lo) + 2^(k-1), q = clamp(round(s·x - zp)); ties too."""
    levels = 2**bits - 1
    for offset in range(levels + 1):
        low, high = -float(offset), float(levels - offset)  # a step is 1: ties are exact
        scale, zero_point = _grid(low, high, bits)
        assert float(scale) == 1.0
        assert float(zero_point) == round(low) + 2 ** (bits - 1)
        x = torch.arange(-2 * levels, 2 * levels + 1) / 2
        expected = [
            max(-(2 ** (bits - 1)), min(2 ** (bits - 1) - 1, round(v - float(zero_point))))
            for v in x.tolist()
        ]
        assert quantize(x, scale, zero_point, bits).tolist() == expected


def test_a_constant_range_gives_a_finite_grid() -> None:
    """An empty range is widened to 1e-8 instead of dividing by zero."""
    scale, zero_point = _grid(0.0, 0.0, 3)
    assert float(scale) > 0 and torch.isfinite(zero_point)


@pytest.mark.parametrize("steps", [1, 2, 10, 20, 200])
def test_a_constant_range_is_observed_as_itself(steps: int) -> None:
    """The bias correction is not fed back into the state: a constant stays what it is."""
    observer = MovingAverageMinMaxObserver()
    for _ in range(steps):
        observer.update(torch.tensor(-1.0), torch.tensor(3.0))
    low, high = observer.range()
    assert float(low) == pytest.approx(-1.0, rel=1e-5)
    assert float(high) == pytest.approx(3.0, rel=1e-5)


def test_an_observed_range_contains_zero() -> None:
    """An all-positive activation still has zero on its grid."""
    observer = MovingAverageMinMaxObserver()
    observer.update(torch.tensor(2.0), torch.tensor(3.0))
    assert float(observer.range()[0]) == 0.0


def test_least_squares_beats_min_max_where_there_is_an_outlier() -> None:
    """One outlier does not cost the whole grid."""
    x = torch.cat([torch.rand(1000), torch.tensor([20.0])])

    def error(low: Tensor, high: Tensor) -> float:
        grid = affine_parameters(low, high, 3)
        return float((dequantize(quantize(x, *grid, 3), *grid) - x).square().mean())

    assert error(*least_squares(x, 3)) < error(x.amin(), x.amax())
