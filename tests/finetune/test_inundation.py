"""Updates are made larger until codes change, and no larger than the cap."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from synq_tune.config import Bits, FineTune
from synq_tune.finetune.inundation import inundated, stretch
from synq_tune.finetune.loop import finetune
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.quantization.layers import quantized_layer
from synq_tune.quantization.minmax import MinMaxWeight
from synq_tune.quantization.student import calibrate, quantize_student, weight_layers
from synq_tune.views.source import SourceMaterial, load_source
from tests.helpers import digits_dataset


def _layer() -> nn.Module:
    layer = nn.Linear(64, 32)
    return quantized_layer(layer, MinMaxWeight(layer.weight, 4))


def _changed(layer: nn.Module, before: torch.Tensor) -> float:
    codes = layer.weight_quantizer.codes
    return float((codes(layer.weight.detach()) != codes(before)).double().mean())


@pytest.mark.parametrize("share", [0.001, 0.01, 0.2])
def test_about_as_many_codes_change_as_asked(share: float) -> None:
    """At a rate at which no code would: at least the share, and not twice it."""
    layer = _layer()
    before = layer.weight.detach().clone()
    with inundated([layer], share, 1e6):
        layer.weight.data += 1e-6 * torch.randn_like(before)
    assert share <= _changed(layer, before) < 2 * share + 1 / before.numel()


def test_an_update_that_is_large_enough_stays() -> None:
    """Enough codes change already."""
    layer = _layer()
    move = 0.1 * torch.randn_like(layer.weight)
    expected = layer.weight.detach() + move
    with inundated([layer], 0.01, 100):
        layer.weight.data += move
    assert torch.equal(layer.weight.detach(), expected)


def test_the_cap_holds() -> None:
    """Also without any gradient, where the released code never ends."""
    layer = _layer()
    weight = layer.weight.detach()
    arguments = layer.weight_quantizer, weight
    assert stretch(*arguments, torch.zeros_like(weight), 0.1, 100.0) == 100.0
    assert stretch(*arguments, 1e-12 * torch.randn_like(weight), 0.1, 100.0) == 100.0


def test_what_has_no_codes_is_left_alone() -> None:
    """Biases move by the optimizer's step."""
    layer = _layer()
    before = layer.bias.detach().clone()
    with inundated([layer], 0.5, 100):
        layer.weight.data += 1e-6
        layer.bias.data += 1.0
    torch.testing.assert_close(layer.bias.detach(), before + 1)


def test_it_is_a_field_of_the_optimizer(teacher: LoadedTeacher, tmp_path: Path) -> None:
    """At a rate far below a step, training changes codes with it and none without."""
    small = {"epochs": 1, "batch_size": 16, "steps_per_epoch": 1, "num_views": 1, "lr": 1e-9}
    changed = []
    for inundation in (0.0, 0.01):
        config = FineTune(
            **small, lambda_cam=0, weight_decay=0, inundation=inundation, inundation_cap=1e9
        )
        material = SourceMaterial(teacher, digits_dataset(20, 4), tmp_path, torch.device("cpu"))
        source = load_source(material, config, 0)
        student = quantize_student(teacher, Bits(weights=4, activations=4), "minmax")
        calibrate(student, source.calibration_images())
        layers = weight_layers(student).values()
        before = [layer.integer_weight()[0] for layer in layers]
        list(finetune(student, source, config))
        pairs = zip(layers, before, strict=True)
        changed.append([float((x.integer_weight()[0] != b).double().mean()) for x, b in pairs])
    assert max(changed[0]) < 0.01 <= min(changed[1])
