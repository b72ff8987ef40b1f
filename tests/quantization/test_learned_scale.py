"""Scales that learn stay positive, learn at any size, and follow LSQ's gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from synq_tune.quantization.affine import per_channel
from synq_tune.quantization.learned_scale import REACH, LearnedScale, learned_scales
from synq_tune.quantization.lsq import DeployWeight, LsqActivation, LsqWeight, SymmetricLsqWeight
from synq_tune.quantization.primitives import learned_fake_quantize

WEIGHTS = [LsqWeight, SymmetricLsqWeight, DeployWeight]
FACTORS = [2.0**-60, 2.0**-20, 2.0**-5, 2.0**13, 2.0**60]


def _activation(x: Tensor, bits: int) -> LsqActivation:
    quantizer = LsqActivation(bits)
    quantizer.observe(x)
    quantizer.end_calibration()
    return quantizer


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("kind", WEIGHTS)
def test_a_channels_size_changes_nothing_but_the_scale(
    kind: type[nn.Module], factor: float
) -> None:
    """Codes and the gradient of what learns are bit for bit those of the channel at another size."""
    weight = torch.randn(6, 5, 3, 3)
    sizes = torch.where(torch.arange(6) % 2 == 0, factor, 1.0).view(6, 1, 1, 1)
    grad = torch.randn_like(weight)
    plain, scaled = kind(weight, 3), kind(weight * sizes, 3)
    outputs = [plain(weight), scaled(weight * sizes)]
    assert torch.equal(outputs[0] * sizes, outputs[1])
    outputs[0].backward(grad)
    outputs[1].backward(grad / sizes)
    assert torch.equal(plain.log_ratio.grad, scaled.log_ratio.grad)


@pytest.mark.parametrize("rate", [0.3, 30.0, 1e4])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_no_update_makes_a_scale_zero(optimizer: type[torch.optim.Optimizer], rate: float) -> None:
    """Hundreds of large updates in random directions, for channels of very different sizes."""
    weight = torch.randn(8, 20) * 10.0 ** torch.arange(-16.0, 16.0, 4.0)[:, None]
    quantizers = [kind(weight, 3) for kind in WEIGHTS] + [_activation(weight[4:5], 3)]
    steps = [quantizer.log_ratio for quantizer in quantizers]
    moving = optimizer(steps, lr=rate)
    for _ in range(200):
        for step in steps:
            step.grad = torch.randn_like(step)
        moving.step()
        for quantizer in quantizers:
            scale = quantizer.scale
            assert bool((scale > 0).all()) and bool(scale.isfinite().all())
    assert all(quantizer(weight).isfinite().all() for quantizer in quantizers)


@pytest.mark.parametrize("start", [-2 * REACH, REACH])
@pytest.mark.parametrize("size", [1e-12, 1e9])
def test_a_lost_scale_finds_back(size: float, start: float) -> None:
    """However far a scale was thrown, the rounding error leads it back, in a channel of any size."""
    weight = torch.randn(4, 64) * size
    quantizer = LsqWeight(weight, 4)
    with torch.no_grad():
        quantizer.log_ratio.fill_(start)
    optimizer = torch.optim.Adam([quantizer.log_ratio], lr=0.3)
    for _ in range(250):
        optimizer.zero_grad()
        ((quantizer(weight) - weight) / size).square().sum().backward()
        optimizer.step()
    error = (quantizer(weight) - weight).detach().std() / size
    assert float(error) < 0.3


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("kind", WEIGHTS)
def test_the_gradient_is_lsqs_times_the_scale(kind: type[nn.Module], bits: int) -> None:
    """The chain rule of exp on what the quantizer had when the scale itself was the parameter."""
    weight, grad = torch.randn(6, 5, 3, 3), torch.randn(6, 5, 3, 3)
    quantizer = kind(weight, bits)
    with torch.no_grad():
        quantizer.log_ratio.uniform_(-1, 1)
    quantizer(weight).backward(grad)
    step = quantizer.scale.detach().requires_grad_(True)
    factor = (weight[0].numel() * quantizer.limits[1]) ** -0.5
    grid = per_channel(step, weight), per_channel(quantizer.zero_point, weight)
    learned_fake_quantize(weight, *grid, quantizer.limits, factor).backward(grad)
    torch.testing.assert_close(quantizer.log_ratio.grad, step.grad * step.detach())


def test_the_gradient_of_the_scale_is_that_of_finite_differences() -> None:
    """Of initial_scale · exp(log_ratio), in double precision."""
    owner = LearnedScale()
    owner._learn_scale(torch.rand(5, dtype=torch.float64) + 0.1)
    ratio = torch.randn(5, dtype=torch.float64, requires_grad=True)

    def scale(value: Tensor) -> Tensor:
        return torch.func.functional_call(owner, {"log_ratio": value}, ())

    owner.forward = lambda: owner.scale
    assert torch.autograd.gradcheck(scale, ratio)


def test_channels_of_zeros_keep_an_ordinary_scale() -> None:
    """A pruned channel has no range: it takes the middle scale of the others and stays zero."""
    weight = torch.randn(5, 3, 3, 3)
    weight[2] = 0.0
    for kind in WEIGHTS:
        quantizer = kind(weight, 3)
        scale = quantizer.scale.detach()
        assert scale[[0, 1, 3, 4]].min() <= scale[2] <= scale[[0, 1, 3, 4]].max()
        assert not quantizer(weight)[2].any() and quantizer.zero_point[2] == 0
        assert not kind(torch.zeros(2, 9), 3)(torch.zeros(2, 9)).any()


@pytest.mark.parametrize("kind", [*WEIGHTS, LsqActivation])
def test_files_that_hold_the_scale_itself_load(kind: type[nn.Module]) -> None:
    """Students saved when the scale was the parameter; one at or below zero counts as 1e-8, as it did."""
    weight = torch.randn(3, 8)
    quantizer = _activation(weight, 3) if kind is LsqActivation else kind(weight, 3)
    model = nn.ModuleDict({"grid": quantizer})
    state = model.state_dict()
    scale = state.pop("grid.initial_scale")
    del state["grid.log_ratio"]
    old = scale * torch.rand_like(scale)
    old.view(-1)[0] = -0.5
    model.load_state_dict({**state, "grid.scale": old})
    assert torch.equal(quantizer.scale, old.clamp_min(1e-8))
    assert torch.equal(quantizer.log_ratio, torch.zeros_like(old))
    again = nn.ModuleDict({"grid": LsqActivation(3) if kind is LsqActivation else kind(weight, 3)})
    with torch.no_grad():
        quantizer.log_ratio.add_(0.5)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again["grid"].scale, quantizer.scale)


def test_learned_scales_are_known_by_their_owner() -> None:
    """A network's own parameters may have any of the names that quantizers use."""
    conv = nn.Conv2d(2, 3, 1)
    model = nn.ModuleDict({"conv": conv, "grid": LsqWeight(torch.randn(3, 4), 3)})
    for name in ("scale", "log_ratio", "initial_scale", "zero_point", "theta"):
        conv.register_parameter(name, nn.Parameter(torch.ones(3)))
    assert list(learned_scales(model)) == [model["grid"].log_ratio]
