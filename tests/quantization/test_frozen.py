"""A frozen student is the student, in integers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from synq_tune.quantization.frozen import (
    StandaloneModel,
    activation_codes,
    freeze,
    frozen_activations,
    frozen_layers,
)
from synq_tune.quantization.student import activation_quantizers, weight_layers
from tests.export import networks

CASES = [(q, b) for q in ("minmax", "lsq") for b in (2, 3, 4, 8)]


@pytest.mark.parametrize(("quantizer", "bits"), CASES)
@pytest.mark.parametrize("network", ["digits_resnet26", "silu_net", "plain_net", "one_sided_net"])
def test_gives_the_students_logits_to_the_bit(network: str, quantizer: str, bits: int) -> None:
    """Freezing changes no bit of any logit."""
    student, images = networks.student(networks.teacher(network), quantizer, bits)
    with torch.no_grad():
        assert torch.equal(freeze(student)(images), student(images))


def test_gives_a_trained_students_logits_to_the_bit() -> None:
    """Also after a training step moved weights and learned step sizes."""
    student, images = networks.student(networks.teacher("silu_net"), "lsq", 3)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    student(images).square().sum().backward()
    optimizer.step()
    with torch.no_grad():
        assert torch.equal(freeze(student)(images), student(images))


def test_holds_codes_of_every_layer_and_grids_of_every_activation() -> None:
    """Codes are the student's integer weights; nothing learns, and no tap is left."""
    student, _ = networks.student(networks.teacher("digits_resnet26"), "minmax", 3)
    frozen = freeze(student)
    layers = weight_layers(student)
    assert frozen_layers(frozen).keys() == layers.keys()
    for name, weight in frozen_layers(frozen).items():
        assert torch.equal(weight.codes, layers[name].integer_weight()[0])
    assert frozen_activations(frozen).keys() == activation_quantizers(student).keys()
    assert not any(p.requires_grad for p in frozen.parameters())
    assert not any(isinstance(m, nn.Identity) for m in frozen.modules())


def test_leaves_the_student_as_it_was() -> None:
    """The student can go on training."""
    student, images = networks.student(networks.teacher("plain_net"), "minmax", 3)
    before = student(images)
    freeze(student)
    assert all(p.requires_grad for p in student.parameters())
    assert torch.equal(student(images), before)


def test_standalone_model_takes_pixels() -> None:
    """Images in [0, 1] give what normalised images give the student, to the bit."""
    teacher = networks.teacher("plain_net")
    student, _ = networks.student(teacher, "minmax", 3)
    pixels = torch.rand(4, 3, 8, 8)
    model = StandaloneModel(freeze(student), teacher.preprocessing)
    with torch.no_grad():
        expected = student(teacher.preprocessing.normalize(pixels))
        assert torch.equal(model(pixels), expected)


def test_activation_codes_count_from_zero() -> None:
    """Codes of k bits lie in 0 … 2^k - 1, in use up to the end, for each activation."""
    student, images = networks.student(networks.teacher("silu_net"), "minmax", 3)
    codes = activation_codes(freeze(student), images * 100)
    assert [int(c.max()) for c in codes.values()] == [7, 7]
    assert all(c.dtype == torch.uint8 for c in codes.values())
