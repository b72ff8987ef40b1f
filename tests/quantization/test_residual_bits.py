"""bits.skip: sums read a width of their own, layers theirs, and files rebuild both."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torchvision.models import mobilenet_v2, resnet18

from synq_tune.config import Bits
from synq_tune.errors import InputError
from synq_tune.inspection.student import inspect_student
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.quantization.student import activation_quantizers, calibrate, quantize_student
from tests.helpers import teacher_of

BITS = Bits(weights=3, activations=3, skip=8)


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        moved = F.pad(x[:, :2], (0, 0, 0, 0, 1, 1))
        return self.head(F.relu(self.conv(x) + moved).mean((2, 3)))


def _student(quantizer: str, bits: Bits = BITS) -> fx.GraphModule:
    torch.manual_seed(0)
    student = quantize_student(teacher_of(_Block(), (3, 8, 8)), bits, quantizer)
    calibrate(student, [torch.randn(16, 3, 8, 8)])
    return student


@pytest.mark.parametrize("quantizer", ["minmax", "lsq"])
def test_layers_and_sums_read_their_own_widths(quantizer: str) -> None:
    """Also a sum behind a slice and a padding; the value layers read is rounded from the stored one."""
    student = _student(quantizer)
    widths = {
        n.removeprefix("quantize_"): m.bits for n, m in activation_quantizers(student).items()
    }
    assert widths == {"relu": 8, "relu_port": 3, "relu_1": 3}
    seen: dict[str, Tensor] = {}
    for name in ("quantize_relu", "quantize_relu_port", "conv"):
        module = student.get_submodule(name)
        module.register_forward_hook(lambda m, i, o, name=name: seen.update({name: (i[0], o)}))
    student(torch.randn(16, 3, 8, 8))
    stored = seen["quantize_relu"][1]
    assert 8 < stored.unique().numel() <= 256
    assert torch.equal(seen["quantize_relu_port"][0], stored)
    assert torch.equal(seen["conv"][0], seen["quantize_relu_port"][1])
    assert seen["conv"][0].unique().numel() <= 8


@pytest.mark.parametrize("quantizer", ["minmax", "lsq"])
def test_every_layer_still_reads_low_bits(digits: LoadedTeacher, quantizer: str) -> None:
    """The share of multiplications in 3 bits is what it is without; 12 blocks have a wide stream."""
    inspections = [
        inspect_student(quantize_student(digits, bits, quantizer))
        for bits in (BITS, Bits(weights=3, activations=3))
    ]
    wide, plain = inspections
    assert wide.share(3, 3) == plain.share(3, 3) > 90
    assert [row.reads for row in wide.layers] == [row.reads for row in plain.layers]
    assert sum(row.bits == 8 for row in wide.tensors) == 12


def test_sums_of_more_bits_are_closer_to_the_teacher(digits: LoadedTeacher) -> None:
    """After calibration alone."""
    images = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    distances = []
    for bits in (BITS, Bits(weights=3, activations=3)):
        student = quantize_student(digits, bits, "lsq")
        calibrate(student, [images])
        distances.append(float((student(images) - digits(images)).square().mean().detach()))
    assert distances[0] < distances[1]


def test_a_projected_shortcut_reads_what_layers_read() -> None:
    """torchvision's ResNet-18: of 8 blocks 3 add a convolution's result; the first parts behind a pool."""
    student = quantize_student(teacher_of(resnet18(), (3, 64, 64)), BITS, "minmax")
    widths = [m.bits for m in activation_quantizers(student).values()]
    assert (widths.count(8), widths.count(3)) == (5, 17)
    assert student.quantize_relu.bits == 8
    assert student.quantize_maxpool_port.bits == 3


def test_what_only_sums_read_is_stored_once() -> None:
    """With `deploy` a branch's end feeds its sum alone: one grid, of the skip's width."""
    student = _student("deploy")
    widths = {
        n.removeprefix("quantize_"): m.bits for n, m in activation_quantizers(student).items()
    }
    assert widths == {"x": 3, "relu": 8, "relu_port": 3, "conv": 8, "relu_1": 3, "mean": 3}
    assert student.conv.weight_quantizer.bits == 3


def test_ends_and_overrides_count_what_layers_read() -> None:
    """`first` is the first tensor a layer reads from a grid; overrides know both names."""
    bits = Bits(weights=3, activations=3, skip=8, first=5, last=6, overrides={"relu": 7})
    grids = activation_quantizers(_student("lsq", bits))
    assert [(n.removeprefix("quantize_"), m.bits) for n, m in grids.items()] == [
        ("relu", 7), ("relu_port", 5), ("relu_1", 6),
    ]  # fmt: skip


@pytest.mark.parametrize("model", [mobilenet_v2, lambda: nn.Sequential(
    nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))])  # fmt: skip
def test_a_width_nothing_has_is_refused(model: type[nn.Module]) -> None:
    """MobileNetV2's sums read float values already; a plain network has none."""
    net = model()
    net(torch.zeros(2, 3, 64, 64))
    with pytest.raises(InputError, match=r"bits\.skip: .*sums=0"):
        quantize_student(teacher_of(net, (3, 64, 64)), BITS, "minmax")


def test_linear_bottlenecks_have_a_stream_with_deploy() -> None:
    """MobileNetV2: what its sums read has 8 bits, sums among it; every layer reads 3."""
    student = quantize_student(teacher_of(mobilenet_v2(), (3, 64, 64)), BITS, "deploy")
    inspection = inspect_student(student)
    assert inspection.share(3, 3) == 100.0
    widths = {row.name: row.bits for row in inspection.tensors}
    assert [widths[n] for n in ("features_3_conv_3", "add", "add_1", "add_1_port")] == [8, 3, 8, 3]


def test_adding_a_number_is_no_sum() -> None:
    """x + 3, as hard-swish is written out, leaves one grid."""

    class Shifted(_Block):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.conv(F.relu(self.stem(x)) + 3.0)).mean((2, 3)))

    with pytest.raises(InputError, match=r"bits\.skip"):
        quantize_student(teacher_of(Shifted(), (3, 8, 8)), BITS, "minmax")


@pytest.mark.parametrize("quantizer", ["minmax", "lsq"])
def test_everything_learns(quantizer: str) -> None:
    """Both grids' steps get a gradient where the family learns them, and so does what lies before."""
    student = _student(quantizer)
    student(torch.randn(16, 3, 8, 8)).square().mean().backward()
    assert [n for n, p in student.named_parameters() if p.grad is None] == []
    assert student.stem.weight.grad.abs().sum() > 0
