"""Fake-quantization of the step: the grid's values to the bit, and each family's gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from synq_tune.quantization import primitives as fake_quant
from synq_tune.quantization.affine import (
    affine_parameters,
    code_limits,
    dequantize,
    per_channel,
    quantize,
)
from synq_tune.quantization.primitives import fake_quantize, learned_fake_quantize, on_grid

BITS = [2, 3, 4, 8]
TINY_PART = 64
"""Values at a time that make several parts of the small tensors here."""


def _with_ties(bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Values (8, 4, 6, 6) with exact ties, zeros and outliers, and a grid of steps of 1/4."""
    scale, zero_point = affine_parameters(
        torch.tensor(-0.25), torch.tensor(2**bits / 4 - 0.5), bits
    )
    x = torch.randn(8, 4, 6, 6) * 2**bits / 8
    x[:2] = (x[:2] * 8).round() / 8
    return x, scale, zero_point


@pytest.mark.parametrize("part", [TINY_PART, 2**18])
@pytest.mark.parametrize("bits", BITS)
def test_values_are_those_of_the_written_out_grid(
    bits: int, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place and in parts, every value equals dequantize(quantize(x)) to the bit, ties too."""
    monkeypatch.setattr(fake_quant, "_PART", part)
    x, scale, zero_point = _with_ties(bits)
    expected = dequantize(quantize(x, scale, zero_point, bits), scale, zero_point)
    assert torch.equal(on_grid(x, scale, zero_point, code_limits(bits)), expected)


@pytest.mark.parametrize("bits", BITS)
def test_a_grid_per_channel_is_the_written_out_one(bits: int) -> None:
    """Weights (O, …) with a scale and a zero point per row."""
    weight = torch.randn(6, 3, 3, 3)
    flat = weight.flatten(1)
    grid = [per_channel(v, weight) for v in affine_parameters(flat.amin(1), flat.amax(1), bits)]
    expected = dequantize(quantize(weight, *grid, bits), *grid)
    assert torch.equal(on_grid(weight, *grid, code_limits(bits)), expected)


def test_layout_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A channels-last tensor stays one, in parts too."""
    monkeypatch.setattr(fake_quant, "_PART", TINY_PART)
    x, scale, zero_point = _with_ties(3)
    value = on_grid(x.contiguous(memory_format=torch.channels_last), scale, zero_point, (-4, 3))
    assert value.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(value, on_grid(x, scale, zero_point, (-4, 3)))


def test_the_gradient_of_a_fixed_grid_is_the_identity() -> None:
    """Rounding and clipping are ignored."""
    x = torch.tensor([0.1, 5.0], requires_grad=True)
    out = fake_quantize(x, torch.tensor(0.25), torch.tensor(4.0), (-4, 3))
    assert out.tolist() == [0.0, 1.75]
    (2 * out).sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


@pytest.mark.parametrize("part", [TINY_PART, 2**18])
@pytest.mark.parametrize("bits", BITS)
def test_a_masked_gradient_stops_where_values_are_clipped(
    bits: int, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same values; a value that an end of the grid is nearest to still passes its gradient."""
    monkeypatch.setattr(fake_quant, "_PART", part)
    x, *grid = _with_ties(bits)
    grids = *grid, code_limits(bits)
    low, high = ((code + grid[1]) * grid[0] for code in code_limits(bits))
    x.requires_grad_(True)
    out = fake_quantize(x, *grids, masks=True)
    assert torch.equal(out, on_grid(x.detach(), *grids))
    given = torch.randn_like(out)
    out.backward(given)
    half = grid[0] / 2
    inside = (x > low - half) & (x < high + half)
    beyond = (x < low - half) | (x > high + half)
    assert inside.any() and beyond.any()
    assert torch.equal(x.grad[inside], given[inside])
    assert not x.grad[beyond].any()


def _reference(x: Tensor, step: Tensor, zero_point: Tensor, limits: tuple[int, int]) -> Tensor:
    """LSQ by autograd: clamp has its own gradient, rounding the identity."""
    clipped = (x / step - zero_point).clamp(*limits)
    codes = clipped + (clipped.round() - clipped).detach()
    return (codes + zero_point) * step


@pytest.mark.parametrize("part", [TINY_PART, 2**18])
@pytest.mark.parametrize("bits", BITS)
def test_learned_steps_have_the_gradients_of_lsq(
    bits: int, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To values and to the one step of an activation; a value exactly at an end is outside."""
    monkeypatch.setattr(fake_quant, "_PART", part)
    x, step, zero_point = _with_ties(bits)
    low, high = code_limits(bits)
    x[2, 0, 0, :2] = (torch.tensor([low, high]) + zero_point) * step
    x.requires_grad_(True)
    step = step.clone().requires_grad_(True)
    grad, factor = torch.randn_like(x), 1 / math.sqrt(5)
    expected = torch.autograd.grad(_reference(x, step, zero_point, (low, high)), (x, step), grad)
    out = learned_fake_quantize(x, step, zero_point, (low, high), factor)
    found = torch.autograd.grad(out, (x, step), grad)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1] * factor, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("zero", [0.0, 1.0], ids=["symmetric", "shifted"])
def test_a_step_per_channel_has_a_gradient_per_channel(bits: int, zero: float) -> None:
    """Weights: one step per row, and a zero point per row; symmetric ones without the lowest code."""
    weight = torch.randn(6, 3, 3, 3, requires_grad=True)
    high = code_limits(bits)[1]
    step = torch.full((6, 1, 1, 1), 1.5 / high, requires_grad=True)
    zero_point = zero * torch.tensor([-1.0, 0.0, 1.0, 1.0, 0.0, -1.0]).view(6, 1, 1, 1)
    arguments = weight, step, zero_point, (-high - int(zero), high)
    grad = torch.randn_like(weight)
    expected = torch.autograd.grad(_reference(*arguments), (weight, step), grad)
    found = torch.autograd.grad(learned_fake_quantize(*arguments, 1.0), (weight, step), grad)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1e-5)
