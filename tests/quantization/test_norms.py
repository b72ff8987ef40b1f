"""BatchNorms corrected for rounded weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from synq_tune.config import Bits, FineTune
from synq_tune.graph.batchnorm import batch_statistics, batchnorm_layers
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.quantization.norms import correct_norms
from synq_tune.quantization.ready import fit_ranges
from synq_tune.quantization.student import activation_quantizers, passing, quantize_student
from tests.helpers import teacher_of


def _depthwise() -> LoadedTeacher:
    """A narrow network with a depthwise layer whose channels differ a lot."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)]
    layers += [nn.ReLU6(), nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)]
    layers += [nn.BatchNorm2d(16), nn.ReLU6(), nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8)]
    model = nn.Sequential(
        *layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )
    model[3].weight.data += 0.7 * torch.randn(16, 1, 1, 1)
    model.train()
    for _ in range(20):
        model(torch.randn(64, 3, 12, 12))
    return teacher_of(model, (3, 12, 12))


def _images(seed: int) -> torch.Tensor:
    return torch.randn(64, 3, 12, 12, generator=torch.Generator().manual_seed(seed))


def _gap(teacher: LoadedTeacher, student: nn.Module) -> float:
    images = _images(9)
    return float((teacher(images) - student(images)).square().mean())


@pytest.mark.parametrize("quantizer", ["minmax", "lsq", "deploy"])
@pytest.mark.parametrize("bits", [2, 3])
def test_logits_come_nearer(quantizer: str, bits: int) -> None:
    """On other images than those it saw; to less than 0.8 of the squared distance."""
    teacher = _depthwise()
    gaps = []
    for is_corrected in (False, True):
        student = quantize_student(teacher, Bits(weights=bits, activations=8), quantizer)
        config = FineTune(correct_norms=is_corrected)
        fit_ranges(student, config, 8, [_images(1), _images(2)])
        gaps.append(_gap(teacher, student))
    assert gaps[1] < 0.8 * gaps[0], gaps


def test_each_layer_then_gives_what_the_teacher_gives() -> None:
    """Mean and deviation behind every BatchNorm are the teacher's, on the images it saw."""
    teacher, images = _depthwise(), _images(1)
    student = quantize_student(teacher, Bits(weights=2, activations=8), "minmax")
    correct_norms(student, [images])
    with torch.no_grad(), batch_statistics(teacher.graph) as exact:
        teacher(images)
    with (
        torch.no_grad(),
        passing(activation_quantizers(student).values()),
        batch_statistics(student) as rounded,
    ):
        student(images)
    pairs = zip(batchnorm_layers(teacher.graph), batchnorm_layers(student), strict=True)
    for ours, theirs in pairs:
        for layer, found in ((ours, exact), (theirs, rounded)):
            mean, variance = found[layer]
            scale = (layer.running_var + layer.eps).rsqrt()
            layer.seen = (mean - layer.running_mean) * scale, (variance + layer.eps).sqrt() * scale
        torch.testing.assert_close(theirs.seen, ours.seen, atol=2e-3, rtol=2e-3)


def test_exact_weights_change_nothing(teacher: LoadedTeacher) -> None:
    """Where rounding loses nothing, what a BatchNorm remembers stays."""
    student = quantize_student(teacher, Bits(weights=8, activations=8), "minmax")
    before = [layer.running_mean.clone() for layer in batchnorm_layers(student)]
    for name, module in student.named_modules():
        if name.endswith("weight_quantizer"):
            module.register_forward_hook(lambda m, inputs, output: inputs[0])
    correct_norms(student, [torch.randn(8, *teacher.preprocessing.shape)])
    for layer, mean in zip(batchnorm_layers(student), before, strict=True):
        torch.testing.assert_close(layer.running_mean, mean, atol=1e-6, rtol=0)


def test_a_network_without_batchnorm_stays() -> None:
    """A transformer has nothing to correct."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    student = quantize_student(
        teacher_of(model, (3, 8, 8)), Bits(weights=2, activations=8), "minmax"
    )
    correct_norms(student, [])


def test_it_needs_an_image(teacher: LoadedTeacher) -> None:
    """Without one there is nothing to measure."""
    student = quantize_student(teacher, Bits(weights=4, activations=8), "minmax")
    with pytest.raises(ValueError, match="at least one batch"):
        correct_norms(student, [])
