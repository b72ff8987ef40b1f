"""The grids that learned steps start from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from synq_tune.config import Bits, Teacher
from synq_tune.models.teacher import load_teacher
from synq_tune.names import known
from synq_tune.quantization.affine import code_limits
from synq_tune.quantization.base import quantizer_family
from synq_tune.quantization.lsq import DeployWeight, LsqWeight, SymmetricLsqWeight
from synq_tune.quantization.student import quantize_student, weight_layers


def _error(grid: nn.Module, weight: Tensor) -> Tensor:
    return (grid(weight) - weight).detach().flatten(1).square().sum(1)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_skewed_channels_lose_less_than_on_a_symmetric_grid(bits: int) -> None:
    """Rows of which nearly all weights have one sign, of either sign."""
    weight = torch.randn(8, 6, 3, 3, generator=torch.Generator().manual_seed(0)).add_(1.5)
    weight[::2] *= -1
    own, symmetric = (
        _error(kind(weight, bits), weight) for kind in (LsqWeight, SymmetricLsqWeight)
    )
    assert bool((own < symmetric).all())
    assert own.sum() < 0.7 * symmetric.sum()


def test_a_teachers_weights_lose_less() -> None:
    """Each layer of the digits teacher at 3 bits, summed over its channels."""
    teacher = load_teacher(Teacher(model="digits_resnet26", channels=1))
    student = quantize_student(teacher, Bits(weights=3, activations=3), "lsq")
    for layer in weight_layers(student).values():
        weight = layer.weight.detach()
        symmetric = SymmetricLsqWeight(weight, 3)
        assert _error(layer.weight_quantizer, weight).sum() < _error(symmetric, weight).sum()


@pytest.mark.parametrize("values", [0.0, 3.0, -3.0], ids=["zero", "positive", "negative"])
def test_channels_of_one_value_are_kept(values: float) -> None:
    """No range to measure: such a channel still comes out as it is."""
    weight = torch.full((2, 4, 3, 3), values)
    torch.testing.assert_close(LsqWeight(weight, 3)(weight), weight, rtol=1e-6, atol=1e-7)


def test_zero_stays_a_code() -> None:
    """The zero point is an integer that some code undoes, in channels of one sign too."""
    weight = torch.randn(6, 40) * torch.tensor([1.0, 0.1, 1e-4, 1, 1, 1])[:, None]
    weight[3], weight[4] = weight[3].abs() + 2, -weight[4].abs() - 2
    low, high = code_limits(3)
    zero_point = LsqWeight(weight, 3).zero_point
    assert torch.equal(zero_point, zero_point.round())
    assert bool((-zero_point >= low).all()) and bool((-zero_point <= high).all())


@pytest.mark.parametrize("kind", [SymmetricLsqWeight, DeployWeight])
def test_symmetric_grids_have_no_zero_point(kind: type[nn.Module]) -> None:
    """What integer kernels multiply is not shifted; `vit_lsq` and `deploy` are made of these."""
    assert not kind(torch.randn(5, 30) + 2.0, 4).zero_point.any()
    assert kind in {family.weight for family in map(quantizer_family, known("quantizer"))}


@pytest.mark.parametrize("name", known("quantizer"))
def test_a_family_says_whether_its_weights_are_shifted(name: str) -> None:
    """What it says holds for channels on one side of zero, whose grids a shift would serve best."""
    weight = torch.rand(4, 32) + 0.5
    _, zero_point = quantizer_family(name).weight(weight, 4).qparams(weight)
    assert bool(zero_point.any()) == quantizer_family(name).weight.has_zero_points
