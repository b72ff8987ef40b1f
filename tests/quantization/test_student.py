"""quantize and calibrate: what is quantized, on which grid, and that the teacher stays untouched."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2, resnet18

from synq_tune.config import Bits
from synq_tune.errors import InputError
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.names import known
from synq_tune.quantization.affine import code_limits
from synq_tune.quantization.student import (
    activation_quantizers,
    calibrate,
    quantize_student,
    weight_layers,
)
from tests.helpers import teacher_of

BITS = Bits(weights=3, activations=3)


@pytest.mark.parametrize("quantizer", known("quantizer"))
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_student_computes_on_its_grids(digits: LoadedTeacher, quantizer: str, bits: int) -> None:
    """Weights per channel and activations per tensor take at most 2^k values; zero is one of them."""
    student = quantize_student(digits, Bits(weights=bits, activations=bits), quantizer)
    calibrate(student, [torch.randn(16, 1, 8, 8) for _ in range(3)])
    for layer in weight_layers(student).values():
        for channel in layer.quantized_weight().detach().flatten(1):
            assert channel.unique().numel() <= 2**bits
        codes, scale, _ = layer.integer_weight()
        low, high = code_limits(bits)
        assert codes.min() >= low and codes.max() <= high
        assert scale.shape == (layer.weight.shape[0],)
    for grid in activation_quantizers(student).values():
        out = grid(torch.linspace(-3, 10, 1000)[None]).unique()
        assert out.numel() <= 2**bits
        assert (out == 0).any()


@pytest.mark.parametrize("quantizer", known("quantizer"))
def test_integer_weights_are_the_weights(digits: LoadedTeacher, quantizer: str) -> None:
    """(code + zero_point) · scale is what the layer multiplies with."""
    student = quantize_student(digits, BITS, quantizer)
    for layer in weight_layers(student).values():
        codes, scale, zero_point = layer.integer_weight()
        shape = (-1, *[1] * (codes.dim() - 1))
        value = (codes.float() + zero_point.view(shape)) * scale.view(shape)
        torch.testing.assert_close(value, layer.quantized_weight().detach(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("quantizer", known("quantizer"))
def test_every_parameter_learns(digits: LoadedTeacher, quantizer: str) -> None:
    """Latent weights, biases, BatchNorm's affine part and learned steps get a gradient."""
    student = quantize_student(digits, BITS, quantizer)
    calibrate(student, [torch.randn(16, 1, 8, 8)])
    student(torch.randn(16, 1, 8, 8)).square().mean().backward()
    assert [n for n, p in student.named_parameters() if p.grad is None] == []


def test_the_teacher_stays_as_it_was(digits: LoadedTeacher) -> None:
    """Quantizing and calibrating copies; running statistics never move."""
    before = {k: v.clone() for k, v in digits.graph.state_dict().items()}
    student = quantize_student(digits, BITS, "minmax")
    calibrate(student, [torch.randn(16, 1, 8, 8)])
    assert all(torch.equal(before[k], v) for k, v in digits.graph.state_dict().items())
    own = student.state_dict()
    assert all(torch.equal(before[k], own[k]) for k in before if "running" in k)


def test_no_hook_survives_calibration(digits: LoadedTeacher) -> None:
    """Observation ends with the block, also when a batch fails."""
    student = quantize_student(digits, BITS, "minmax")
    with pytest.raises(RuntimeError):
        calibrate(student, [torch.randn(4, 1, 8, 8), torch.randn(4, 3, 8, 8)])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in student.modules())


def test_ranges_do_not_move_outside_calibration(digits: LoadedTeacher) -> None:
    """No image seen later, real ones above all, changes a range."""
    student = quantize_student(digits, BITS, "minmax")
    calibrate(student, [torch.randn(16, 1, 8, 8)])
    before = {n: m.qparams()[0].clone() for n, m in activation_quantizers(student).items()}
    student(100 * torch.randn(16, 1, 8, 8))
    for name, grid in activation_quantizers(student).items():
        assert torch.equal(grid.qparams()[0], before[name])


def test_calibration_needs_a_batch(digits: LoadedTeacher) -> None:
    """An empty calibration would leave grids of width one."""
    with pytest.raises(ValueError, match="at least one batch"):
        calibrate(quantize_student(digits, BITS, "minmax"), [])


def test_one_range_per_call_site() -> None:
    """torchvision's block calls one ReLU module twice; each call has its own range."""
    student = quantize_student(teacher_of(resnet18(), (3, 64, 64)), BITS, "minmax")
    assert len(weight_layers(student)) == 21
    assert len(activation_quantizers(student)) == 17


def test_relu6_networks_are_quantized() -> None:
    """MobileNetV2: every convolution and the classifier; 35 activations."""
    student = quantize_student(teacher_of(mobilenet_v2(), (3, 64, 64)), BITS, "minmax")
    assert len(weight_layers(student)) == 53
    assert len(activation_quantizers(student)) == 35


def test_first_last_and_overrides(digits: LoadedTeacher) -> None:
    """Widths of the ends and of layers matched by a glob differ from the rest."""
    bits = Bits(weights=3, activations=3, first=8, last=7, overrides={"layer2.*": 4})
    student = quantize_student(digits, bits, "minmax")
    widths = {name: m.weight_quantizer.bits for name, m in weight_layers(student).items()}
    assert (widths["conv1"], widths["linear"]) == (8, 7)
    assert widths["layer2.0.conv1"] == 4
    assert widths["layer1.0.conv1"] == 3
    activations = [m.bits for m in activation_quantizers(student).values()]
    assert (activations[0], activations[1], activations[-1]) == (8, 3, 7)


def test_one_name_gives_weights_and_values_their_own_widths(digits: LoadedTeacher) -> None:
    """A mapping changes only the kind it names, whatever else the glob matches."""
    overrides = {"*": {"activations": 5}, "relu*": 4, "conv1": {"weights": 2}}
    student = quantize_student(
        digits, Bits(weights=3, activations=3, overrides=overrides), "deploy"
    )
    weights = {name: m.weight_quantizer.bits for name, m in weight_layers(student).items()}
    assert weights.pop("conv1") == 2 and set(weights.values()) == {3}
    values = {name: m.bits for name, m in activation_quantizers(student).items()}
    assert all(width == (4 if "relu" in name else 5) for name, width in values.items())
    assert {4, 5} == set(values.values())


@pytest.mark.parametrize("kind", ["weights", "activations"])
def test_an_override_of_the_other_kind_is_an_error(digits: LoadedTeacher, kind: str) -> None:
    """A layer has no values of its name, an activation no weights."""
    name = {"weights": "relu", "activations": "linear"}[kind]
    bits = Bits(weights=3, activations=3, overrides={name: {kind: 4}})
    with pytest.raises(InputError, match=f"'{name}'"):
        quantize_student(digits, bits, "minmax")


def test_an_override_that_matches_nothing_is_an_error(digits: LoadedTeacher) -> None:
    """A mistyped layer name does not pass silently."""
    bits = Bits(weights=3, activations=3, overrides={"layr2.*": 4})
    with pytest.raises(InputError, match=r"'layr2\.\*'"):
        quantize_student(digits, bits, "minmax")


@pytest.mark.parametrize("activation", [nn.RReLU(), nn.GLU(1)], ids=repr)
def test_an_unknown_activation_is_named(activation: nn.Module) -> None:
    """What nobody knows how to quantize is refused by name."""
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), activation, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(5)
    )
    net(torch.randn(1, 3, 8, 8))
    with pytest.raises(InputError, match=type(activation).__name__):
        quantize_student(teacher_of(net, (3, 8, 8)), BITS, "minmax")


def test_more_bits_are_closer_to_the_teacher(digits: LoadedTeacher) -> None:
    """8 bits lose almost nothing, 3 bits more, 2 bits most."""
    images = torch.randn(64, 1, 8, 8)
    distances = []
    for bits in (8, 3, 2):
        student = quantize_student(digits, Bits(weights=bits, activations=bits), "minmax")
        calibrate(student, [images])
        distances.append(float((student(images) - digits(images)).square().mean().detach()))
    assert distances[0] < distances[1] < distances[2]
