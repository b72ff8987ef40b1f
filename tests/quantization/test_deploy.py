"""The `deploy` family: every tensor that integer hardware reads is on a grid, weights are symmetric."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v2, resnet18

from synq_tune.config import Bits
from synq_tune.graph.operations import is_passthrough, is_sum
from synq_tune.inspection.student import inspect_student
from synq_tune.quantization.learned_scale import learned_scales
from synq_tune.quantization.student import (
    activation_quantizers,
    calibrate,
    quantize_student,
    weight_layers,
)
from tests.helpers import teacher_of

BITS = Bits(weights=4, activations=8)


@pytest.fixture(scope="module")
def student() -> torch.fx.GraphModule:
    quantized = quantize_student(teacher_of(resnet18(), (3, 64, 64)), BITS, "deploy")
    calibrate(quantized, [torch.randn(4, 3, 64, 64)])
    return quantized


def test_every_layer_reads_integers(student: torch.fx.GraphModule) -> None:
    """All multiplications have 4-bit weights and 8-bit values; only the logits are float."""
    inspection = inspect_student(student)
    assert inspection.share(4, 8) == 100.0
    assert [row.name for row in inspection.tensors if row.bits is None] == ["fc"]


def _is_on_a_grid(student: torch.fx.GraphModule, node: torch.fx.Node) -> bool:
    """Whether a grid stands before the node, or before what only moves its values to it."""
    while not str(node.target).startswith("quantize_"):
        if not is_passthrough(student, node):
            return False
        node = node.args[0]
    return True


def test_sums_read_integers_on_both_sides(student: torch.fx.GraphModule) -> None:
    """Both branches of each of the eight residual sums are on a grid."""
    sums = [node for node in student.graph.nodes if is_sum(node)]
    assert len(sums) == 8
    assert all(_is_on_a_grid(student, source) for node in sums for source in node.args)


def test_weights_are_symmetric_without_the_lowest_code(student: torch.fx.GraphModule) -> None:
    """Codes of 4 bits lie in -7 … 7 and the zero point is 0, so that a channel can change its sign."""
    for layer in weight_layers(student).values():
        codes, _, zero_point = layer.integer_weight()
        assert codes.min() >= -7 and codes.max() <= 7
        assert not zero_point.any()
        assert torch.equal(codes.float(), (layer.quantized_weight() / layer.integer_weight()[1].view(
            -1, *[1] * (codes.dim() - 1))).detach().round())  # fmt: skip


def test_steps_are_learned(student: torch.fx.GraphModule) -> None:
    """Weights' and activations' steps get a gradient."""
    student(torch.randn(2, 3, 64, 64)).square().mean().backward()
    steps = learned_scales(student)
    assert len(steps) == len(weight_layers(student)) + len(activation_quantizers(student))
    assert all(p.grad is not None for p in steps)


def test_linear_bottlenecks_have_a_grid() -> None:
    """MobileNetV2's projections end without an activation; hardware reads them all the same."""
    student = quantize_student(teacher_of(mobilenet_v2(), (3, 64, 64)), BITS, "deploy")
    inspection = inspect_student(student)
    assert inspection.share(4, 8) == 100.0
    # 35 ReLU6, 17 projections, 10 sums, the input, the pooled values.
    assert len(activation_quantizers(student)) == 35 + 17 + 10 + 2


class _Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.gate, self.act, self.fc = nn.Conv2d(8, 8, 1), nn.SiLU(), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn(self.conv(x)))
        gate = self.gate(x.mean((2, 3), keepdim=True)).sigmoid()
        both = torch.cat([x * gate, x], 1)
        return self.fc(both.mean((2, 3)).flatten(1))


def test_gates_products_and_concatenations_have_grids() -> None:
    """Everything but the logits: also the input of SiLU, which hardware computes on its own."""
    student = quantize_student(teacher_of(_Gated(), (3, 16, 16)), BITS, "deploy")
    names = {n.removeprefix("quantize_") for n in activation_quantizers(student)}
    assert names == {"x", "bn", "act", "mean", "gate", "sigmoid", "mul", "cat", "mean_1"}


def test_a_layers_name_is_not_that_of_its_values() -> None:
    """The grid behind a convolution without BatchNorm has the same name; W4A8 gives it 8 bits, not 4."""
    student = quantize_student(teacher_of(_Gated(), (3, 16, 16)), BITS, "deploy")
    assert student.quantize_gate.bits == 8
    assert student.gate.weight_quantizer.bits == 4


def test_the_papers_quantizer_leaves_them_float() -> None:
    """The same network: one grid, behind SiLU."""
    student = quantize_student(teacher_of(_Gated(), (3, 16, 16)), BITS, "minmax")
    assert list(activation_quantizers(student)) == ["quantize_act"]


class _WritesOutSiLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.fc((x * torch.sigmoid(x)).mean((2, 3)))


def test_silu_written_out_is_an_activation() -> None:
    """x · sigmoid(x) has a grid; a gate with another factor has none."""
    student = quantize_student(teacher_of(_WritesOutSiLU(), (3, 8, 8)), BITS, "minmax")
    assert list(activation_quantizers(student)) == ["quantize_mul"]
