"""BatchNorm absorbed into scales and biases: the same function with (almost) the same codes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from synq_tune.config import Bits
from synq_tune.export.absorb import absorb_batchnorms
from synq_tune.quantization.frozen import freeze, frozen_layers
from synq_tune.quantization.student import calibrate, quantize_student
from tests.helpers import teacher_of

GAMMAS = (1.5, -0.7, 0.0, 0.2)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _norm(kind: type[nn.Module], channels: int) -> nn.Module:
    norm = kind(channels)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor(GAMMAS).repeat(channels // 4))
        norm.bias.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
    return norm


class _Twice(nn.Module):
    """A layer called twice, with a BatchNorm behind each call."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.norm1, self.norm2 = _norm(nn.BatchNorm2d, 4), _norm(nn.BatchNorm2d, 4)
        self.linear = nn.Linear(4 * 36, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.shared(self.first(x))).relu()
        return self.linear(self.norm2(self.shared(x)).relu().flatten(1))


NETWORKS = {
    "plain": lambda: nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), _norm(nn.BatchNorm2d, 8)),
    "bias": lambda: nn.Sequential(nn.Conv2d(3, 8, 3), _norm(nn.BatchNorm2d, 8)),
    "grouped": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), _norm(nn.BatchNorm2d, 8)
    ),
    "depthwise": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), _norm(nn.BatchNorm2d, 8)
    ),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(108, 8), _norm(nn.BatchNorm1d, 8)),
    "without gamma": lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False)),
}


def _frozen(net: nn.Module, quantizer: str, bits: int = 4) -> fx.GraphModule:
    net.eval()(torch.zeros(1, 3, 6, 6))  # a LazyLinear learns its size
    teacher = teacher_of(net, (3, 6, 6))
    student = quantize_student(teacher, Bits(weights=bits, activations=8), quantizer)
    calibrate(student, [torch.randn(8, 3, 6, 6)])
    return freeze(student)


def _with_head(body: nn.Sequential) -> nn.Sequential:
    """An activation, which every student has, and a classifier behind `body`."""
    return nn.Sequential(*body, nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))


def _norms(graph: nn.Module) -> int:
    return sum(isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)) for m in graph.modules())


@pytest.mark.parametrize("quantizer", ["minmax", "lsq", "deploy"])
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_the_function_stays(name: str, quantizer: str) -> None:
    """No BatchNorm is left, every scale is positive, and the logits are the same."""
    body = NETWORKS[name]()
    frozen = _frozen(_with_head(body), quantizer)
    images = torch.randn(16, 3, 6, 6)
    expected = frozen(images)
    absorb_batchnorms(frozen)
    assert _norms(frozen) == 0
    assert all((w.scale > 0).all() for w in frozen_layers(frozen).values())
    # A value on a rounding edge may fall to the other side: that costs one step of the input grid.
    close = torch.isclose(frozen(images), expected, rtol=1e-4, atol=1e-4)
    assert close.float().mean() > (0.9 if quantizer == "deploy" else 0.999)


def test_codes_change_their_sign_only() -> None:
    """Equal where gamma > 0, negated where gamma < 0, zero where gamma is 0."""
    frozen = _frozen(_with_head(NETWORKS["bias"]()), "deploy")
    before = frozen_layers(frozen)["0"].codes.clone()
    absorb_batchnorms(frozen)
    weight = frozen_layers(frozen)["0"]
    signs = torch.tensor(GAMMAS).sign().repeat(2).view(-1, 1, 1, 1)
    assert torch.equal(weight.codes, (before * signs).to(torch.int8))
    assert not weight.zero_point.any()


@torch.no_grad()
def test_the_lowest_code_takes_the_complement() -> None:
    """A channel with the code -2^(b-1) stays within its bits, and only it gets a zero point."""
    frozen = _frozen(_with_head(NETWORKS["bias"]()), "lsq")
    weight = frozen_layers(frozen)["0"]
    weight.zero_point.zero_()
    weight.codes[1, 0, 0, 0] = -8
    weight.codes[5].clamp_(min=-7)
    expected = -weight()
    absorb_batchnorms(frozen)
    mirrored = frozen_layers(frozen)["0"]
    assert mirrored.codes.min() >= -8 and mirrored.codes.max() <= 7
    assert (mirrored.zero_point[1], mirrored.zero_point[5]) == (1, 0)
    ratio = mirrored.scale[1] / weight.scale[1]
    assert torch.allclose(mirrored()[1], expected[1] * ratio)


@pytest.mark.parametrize("quantizer", ["lsq", "minmax"])
@torch.no_grad()
def test_a_layer_called_twice_keeps_its_batchnorms(quantizer: str) -> None:
    """Two BatchNorms cannot go into one set of scales; the logits stay to the bit."""
    frozen = _frozen(_Twice(), quantizer)
    images = torch.randn(4, 3, 6, 6)
    expected = frozen(images)
    absorb_batchnorms(frozen)
    assert _norms(frozen) == 2
    assert torch.equal(frozen(images), expected)


@torch.no_grad()
def test_a_batchnorm_before_a_layer_stays() -> None:
    """Pre-activation networks have BatchNorms that no layer feeds alone."""
    net = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), _norm(nn.BatchNorm2d, 4), nn.ReLU(), nn.Conv2d(4, 4, 1),
        nn.Flatten(), nn.LazyLinear(5),
    )  # fmt: skip
    frozen = _frozen(net, "lsq")
    images = torch.randn(4, 3, 6, 6)
    expected = frozen(images)
    absorb_batchnorms(frozen)
    assert _norms(frozen) == 1
    assert torch.equal(frozen(images), expected)
