"""Every grid stands behind a float tensor that something reads, in front of all its later readers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from synq_tune.config import Bits
from synq_tune.errors import InputError
from synq_tune.export.hardware import reads_integers
from synq_tune.graph.branches import past_identities, readers_of
from synq_tune.graph.nodes import is_float
from synq_tune.graph.operations import is_fused
from synq_tune.names import known
from synq_tune.quantization.frozen import freeze
from synq_tune.quantization.student import (
    ACTIVATION_PREFIX,
    activation_quantizers,
    calibrate,
    quantize_student,
)
from synq_tune.quantization.unplaced import unplaced_functions
from tests.helpers import teacher_of

BITS = Bits(weights=4, activations=4)
SHAPE = (3, 8, 8)

Middle = Callable[[nn.Module, Tensor], Tensor]


class _Net(nn.Module):
    def __init__(self, middle: Middle) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 5)
        self.relu = nn.ReLU(inplace=True)
        self.slope = nn.Parameter(torch.full((4, 1, 1), 0.25))
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(self, self.norm(self.first(x)))
        return self.last(self.second(x).relu().mean((2, 3)))


def _in_place(net: nn.Module, x: Tensor) -> Tensor:
    net.relu(x)
    return x


def _of_a_view(net: nn.Module, x: Tensor) -> Tensor:
    x[:, :2].relu_()
    return x + 1


def _masks(net: nn.Module, x: Tensor) -> Tensor:
    y = F.relu(x)
    return torch.where(y > 0.1, y, torch.zeros_like(y)) * (y < 5) + x.argmax(1, keepdim=True)


def _sizes(net: nn.Module, x: Tensor) -> Tensor:
    unread = F.relu(x)
    batch = unread.size(0)
    y = F.relu6(x).reshape(batch, -1)
    return y.view(batch, *x.shape[1:]) + torch.ones_like(unread) / x.shape[2]


def _by_name(net: nn.Module, x: Tensor) -> Tensor:
    return torch.add(input=F.relu(input=x, inplace=True), other=x.clamp(min=0))


def _gated(net: nn.Module, x: Tensor) -> Tensor:
    x = torch.clamp(x, 0, 6)
    return x * (x.mean((2, 3), keepdim=True) / 6 + 0.5).clamp(0, 1)


MIDDLES = (_in_place, _of_a_view, _masks, _sizes, _by_name, _gated)


def _student(middle: Middle, quantizer: str, bits: Bits = BITS) -> fx.GraphModule:
    torch.manual_seed(0)
    return quantize_student(teacher_of(_Net(middle), SHAPE), bits, quantizer)


@pytest.mark.parametrize("quantizer", known("quantizer"))
@pytest.mark.parametrize("middle", MIDDLES, ids=lambda f: f.__name__)
def test_every_grid_is_behind_a_float_tensor_that_something_reads(
    middle: Middle, quantizer: str
) -> None:
    """No mask, no index, no constant has one; the student trains and computes the same when frozen."""
    student = _student(middle, quantizer)
    grids = [n for n in student.graph.nodes if str(n.target).startswith(ACTIVATION_PREFIX)]
    assert len(grids) == len(activation_quantizers(student)) > 0
    for grid in grids:
        source = past_identities(student, grid.args[0])
        assert is_float(source) or source.op == "get_attr"
        assert readers_of(student, grid)
        later = [r for r in readers_of(student, source) if r is not grid]
        assert not later, f"{later} read {source} beside its grid"
    images = torch.randn(4, *SHAPE)
    calibrate(student, [images])
    student(images).square().mean().backward()
    torch.testing.assert_close(freeze(student)(images), student(images))


def test_what_an_operation_in_place_writes_is_read_from_the_grid() -> None:
    """The second convolution reads integers, though it reads the tensor and not the call's result."""
    student = _student(_in_place, "minmax")
    second = next(n for n in student.graph.nodes if n.target == "second")
    assert second.args[0].target == "quantize_relu"


def test_masks_and_constants_do_not_keep_hardware_from_reading_integers() -> None:
    """With `deploy` every layer of such a network reads a grid."""
    student = _student(_masks, "deploy")
    calibrate(student, [torch.randn(4, *SHAPE)])
    assert reads_integers(freeze(student))
    names = set(activation_quantizers(student))
    assert "quantize_where" in names
    assert not names & {"quantize_gt", "quantize_lt", "quantize_zeros_like", "quantize_argmax"}


@pytest.mark.parametrize("quantizer", ["minmax", "lsq"])
def test_a_student_without_a_value_grid_is_refused(quantizer: str) -> None:
    """A study never calls itself WxAy with no A; the line names the way out."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5))
    teacher = teacher_of(net, SHAPE)
    with pytest.raises(InputError, match=f"a tensor gets a grid.*{quantizer}.*quantizer=deploy"):
        quantize_student(teacher, BITS, quantizer)
    assert activation_quantizers(quantize_student(teacher, BITS, "deploy"))


def test_a_student_without_a_weight_grid_is_refused() -> None:
    """Pooling alone has nothing to quantize."""
    net = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(InputError, match="has a Conv2d or Linear"):
        quantize_student(teacher_of(net, SHAPE), BITS, "minmax")


BENDS: dict[str, Middle] = {
    "hard threshold": lambda n, x: torch.where(x > 0.1, x, 0.0),
    "six hard swishes": lambda n, x: x * F.relu6(x + 3),
    "shifted": lambda n, x: torch.maximum(x, x.new_full((1,), -0.5)),
    "slope by channel": lambda n, x: torch.max(x, n.slope * x),
    "square root": lambda n, x: x.abs().sqrt() * torch.where(x > 0, 1.0, -1.0),
    "moved": lambda n, x: (x * x.clamp(-1, 1)).flatten(1).view(-1, 4, 8, 8),
}


@pytest.mark.parametrize("middle", BENDS.values(), ids=BENDS)
def test_an_activation_without_a_name_never_stays_float(middle: Middle) -> None:
    """It is refused by name, or with `deploy` it has a grid as every tensor has."""
    with pytest.raises(InputError, match=r"known or has a grid.* at \w+.*deploy"):
        _student(middle, "minmax")
    student = _student(middle, "deploy")
    assert unplaced_functions(student, []) or activation_quantizers(student)


STAYS: dict[str, Middle] = {
    "sum of an activation": lambda n, x: x + F.relu(x) / 2,
    "square of an activation": lambda n, x: F.relu(x) ** 2,
    "layer scale": lambda n, x: x + n.slope * F.relu(x),
    "norm": lambda n, x: F.relu(x) / (x.square().mean(1, keepdim=True) + 1e-5).sqrt(),
    "standardised": lambda n, x: (x - x.mean(1, keepdim=True)) * (x.var(1)[:, None] + 1).rsqrt(),
    "length": lambda n, x: x / x.abs().sum((2, 3), keepdim=True).clamp_min(1e-12),
    "softmax": lambda n, x: F.relu(x) * x.flatten(2).softmax(2).view_as(x),
    "gate": lambda n, x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
    "resized gate": lambda n, x: x * F.interpolate(torch.sigmoid(F.avg_pool2d(x, 2)), (8, 8)),
    "resized clamp": lambda n, x: x * F.interpolate((x[:, :, ::2] + 0.5).clamp(0, 1), (8, 8)),
    "clamped gate": lambda n, x: x * (x.mean((2, 3), keepdim=True) * 0.2 + 0.5).clamp(0, 1),
    "guard": lambda n, x: x.clamp(-65504, 65504),
    "mask": lambda n, x: x * (x.mean(1, keepdim=True) > 0),
}


@pytest.mark.parametrize("middle", STAYS.values(), ids=STAYS)
def test_gates_statistics_and_sums_stay_as_they_were(middle: Middle) -> None:
    """What weighs, normalises or adds is no activation."""
    assert activation_quantizers(_student(middle, "minmax"))


class _Misnamed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5)
        self.relu, self.add, self.view = nn.SiLU(), nn.AvgPool2d(2), nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.view(self.add(self.relu(self.norm(self.conv(x))))).mean((2, 3)))


def test_a_module_is_what_it_computes_and_not_what_it_is_called() -> None:
    """A SiLU called "relu" is not fused, and one called "view" does not only move values."""
    student = quantize_student(teacher_of(_Misnamed(), SHAPE), BITS, "deploy")
    norm = next(n for n in student.graph.nodes if n.target == "norm")
    assert not is_fused(student, norm)
    names = {n.removeprefix(ACTIVATION_PREFIX) for n in activation_quantizers(student)}
    assert names == {"x", "norm", "relu", "add", "view", "mean"}
