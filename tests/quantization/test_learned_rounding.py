"""Weights whose rounding is learned: exact at first, on the grid at the end, the same in files."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from synq_tune.config import Bits
from synq_tune.quantization.base import WeightQuantizer
from synq_tune.quantization.frozen import freeze
from synq_tune.quantization.genie import GenieActivation, GenieDeployWeight, GenieWeight
from synq_tune.quantization.student import (
    activation_quantizers,
    calibrate,
    quantize_student,
    weight_layers,
)
from tests.export import networks

KINDS = [GenieWeight, GenieDeployWeight]


def _on_grid(grid: WeightQuantizer, weight: torch.Tensor) -> torch.Tensor:
    scale, zero = (v.detach()[:, None] for v in grid.qparams(weight))
    return (grid.codes(weight) + zero) * scale


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_before_any_reconstruction_rounding_is_to_nearest(
    kind: type[GenieWeight], bits: int
) -> None:
    """No other code is nearer, and codes are what forward computes with."""
    weight = torch.randn(6, 40)
    grid = kind(weight, bits)
    value = grid(weight).detach()
    assert torch.equal(value, _on_grid(grid, weight))
    scale, zero = (v.detach()[:, None, None] for v in grid.qparams(weight))
    every = (torch.arange(grid.limits[0], grid.limits[1] + 1.0) + zero) * scale
    nearest = (every - weight[:, :, None]).abs().amin(2)
    assert torch.allclose((value - weight).abs(), nearest, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_soft_bits_start_exact_and_end_on_the_grid(kind: type[GenieWeight]) -> None:
    """Within the range a soft weight is the weight itself; hard, it is rounded as V says."""
    weight = torch.randn(4, 30)
    grid = kind(weight, 4)
    nearest = grid.codes(weight)
    soft = grid.soften(weight)
    step, zero = (v.detach()[:, None] for v in grid.qparams(weight))
    low, high = ((limit + zero) * step for limit in grid.limits)
    assert torch.allclose(grid(weight), weight.clamp(low, high), atol=1e-5)
    with torch.no_grad():
        soft.logits.neg_()  # every bit the other way
    grid.harden()
    inside = ((weight > low + step) & (weight < high - step)).logical_and(soft.logits != 0)
    assert ((grid.codes(weight) - nearest).abs()[inside] == 1).all()
    assert torch.equal(grid(weight).detach(), _on_grid(grid, weight))


def test_bits_and_step_learn_together() -> None:
    """Both get a gradient, that of the step being Σ grad · (code + zero point)."""
    weight = torch.randn(3, 20)
    grid = GenieWeight(weight, 3)
    soft = grid.soften(weight)
    value = grid(weight)
    value.sum().backward()
    assert soft.logits.grad.abs().sum() > 0
    assert torch.allclose(grid.log_ratio.grad, value.detach().sum(1), atol=1e-5)


def test_the_penalty_is_none_on_the_ends_alone() -> None:
    """1 per weight in the middle, 0 where a bit is 0 or 1."""
    grid = GenieWeight(torch.randn(2, 10), 4)
    soft = grid.soften(torch.randn(2, 10))
    with torch.no_grad():
        soft.logits.fill_(0.0)
        assert float(soft.penalty(2.0)) == 20
        soft.logits.fill_(9.0)
        assert float(soft.penalty(20.0)) == 0


def test_chosen_codes_stay_until_the_weight_is_released() -> None:
    """Steps learn, weights do not; a released weight starts from its chosen value and learns."""
    weight = nn.Parameter(torch.randn(3, 20))
    grid = GenieWeight(weight, 3)
    soft = grid.soften(weight)
    with torch.no_grad():
        soft.logits.neg_()
    grid.harden()
    codes, value = grid.codes(weight), grid(weight).detach().clone()
    grid(weight).sum().backward()
    assert weight.grad is None and grid.log_ratio.grad.abs().sum() > 0
    with torch.no_grad():
        weight.add_(5.0)
        grid.log_ratio.add_(0.3)
    assert torch.equal(grid.codes(weight), codes)
    with torch.no_grad():
        grid.log_ratio.sub_(0.3)
    grid.release(weight)
    assert torch.allclose(grid(weight), value, atol=1e-6)
    grid(weight).sum().backward()
    assert weight.grad.abs().sum() > 0


def test_a_restored_grid_has_its_chosen_codes() -> None:
    """Both ways: a fresh one takes them, a fitted one gives them up."""
    weight = torch.randn(3, 20)
    plain, fitted = GenieWeight(weight, 3), GenieWeight(weight, 3)
    soft = fitted.soften(weight)
    with torch.no_grad():
        soft.logits.neg_()
    fitted.harden()
    states = [copy.deepcopy(g.state_dict()) for g in (plain, fitted)]
    values = [g(weight).detach() for g in (plain, fitted)]
    assert not torch.equal(*values)
    plain.load_state_dict(states[1])
    fitted.load_state_dict(states[0])
    assert torch.equal(plain(weight), values[1]) and torch.equal(fitted(weight), values[0])


@pytest.mark.parametrize(("offset", "zero_point"), [(0.0, 0.0), (9.0, 8.0)])
def test_values_of_one_sign_have_all_codes(offset: float, zero_point: float) -> None:
    """Signed where a value is below zero, else counted from zero."""
    grid = GenieActivation(4)
    grid.observe(torch.randn(4, 1000) + offset)
    grid.end_calibration()
    assert float(grid.qparams()[1]) == zero_point


def test_dropped_values_stay_as_they_are() -> None:
    """The mask's, and no others; without a mask all are rounded again."""
    x = torch.randn(8, 50)
    grid = GenieActivation(2)
    grid.observe(x)
    grid.end_calibration()
    rounded = grid(x).detach()
    mask = torch.rand(8, 50) < 0.5
    grid.drop(lambda like: mask)
    assert torch.equal(grid(x), torch.where(mask, x, rounded))
    grid.drop(None)
    assert torch.equal(grid(x), rounded)


def test_genie_has_one_grid_in_front_of_every_layer_but_the_image() -> None:
    """What a shortcut reads beside a layer it reads from the same grid; ends can have 8 bits."""
    teacher = networks.teacher("digits_resnet26")
    student = quantize_student(teacher, Bits(weights=3, activations=3, first=8, last=8), "genie")
    grids, layers = activation_quantizers(student), weight_layers(student)
    bits = [g.bits for g in grids.values()]
    assert (bits[0], bits[-1], set(bits[1:-1])) == (8, 8, {3})
    widths = [layer.weight_quantizer.bits for layer in layers.values()]
    assert (widths[0], widths[-1], set(widths[1:-1])) == (8, 8, {3})
    # 26 layers; the first reads the image, and each block's first grid serves its shortcut too.
    read = {n.args[0].target for n in student.graph.nodes if n.target in list(layers)[1:]}
    assert len(read & set(grids)) == len(grids) - 1  # the last stands in front of a flatten
    assert any(len(n.users) > 1 for n in student.graph.nodes if n.target in grids)


@pytest.mark.parametrize("quantizer", ["genie", "genie_deploy"])
@torch.no_grad()
def test_a_fitted_student_freezes_to_the_bit(quantizer: str) -> None:
    """Its codes are the chosen ones, not those of rounding to nearest."""
    teacher = networks.teacher("residual_net")
    student = quantize_student(teacher, Bits(weights=3, activations=4), quantizer)
    images = torch.randn(8, 3, 8, 8)
    calibrate(student, [images])
    before = student(images)
    for layer in weight_layers(student).values():
        layer.weight_quantizer.soften(layer.weight).logits.neg_()
        layer.weight_quantizer.harden()
    assert not torch.equal(student(images), before)
    assert torch.equal(freeze(student)(images), student(images))
