"""ZeroQ's images: each by itself has the teacher's statistics."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from synq_tune.config.synthesis import ZeroqSettings
from synq_tune.graph.batchnorm import batchnorm_layers
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.synthesis.dataset import synthesize
from synq_tune.synthesis.image_statistics import image_statistics
from synq_tune.synthesis.method import Batch, Work
from synq_tune.synthesis.zeroq import objective
from tests.helpers import teacher_of
from tests.synthesis.conftest import MakeSpec


def _loss(teacher: LoadedTeacher, images: torch.Tensor, **settings: object) -> float:
    work = Work(teacher, ZeroqSettings(**settings), Path(), show=False)
    batch = Batch(len(images), None, torch.Generator())
    with objective(work).loss(batch) as loss, torch.no_grad():
        return loss(images, teacher(images)).item()


def _by_hand(teacher: LoadedTeacher, images: torch.Tensor, power: float) -> float:
    """Image by image, channel by channel, from the values in front of each BatchNorm."""
    total, inputs = 0.0, {}
    hooks = [
        layer.register_forward_pre_hook(lambda m, x: inputs.__setitem__(m, x[0]))
        for layer in batchnorm_layers(teacher.graph)
    ]
    for image in images:
        teacher(image[None])
        for layer, values in inputs.items():
            rows = values[0].flatten(1).double()
            count = rows.shape[1]
            mean = rows.sum(1) / count
            variance = ((rows - mean[:, None]) ** 2).sum(1) / (count - 1)
            aim = layer.running_var.double()
            total += ((mean - layer.running_mean) ** 2).sum().item()
            total += ((variance**power - aim**power) ** 2).sum().item()
    for hook in hooks:
        hook.remove()
    return total / len(images)


@pytest.mark.parametrize(("spread", "power"), [("deviation", 0.5), ("variance", 1.0)])
def test_the_loss_by_hand(teacher: LoadedTeacher, spread: str, power: float) -> None:
    """Channels and layers added up, images averaged, Bessel's correction; then the prior."""
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        gaps = _by_hand(teacher, images, power)
    assert _loss(teacher, images, spread=spread, alpha_prior=0) == pytest.approx(gaps, rel=1e-3)
    deviation, mean = torch.std_mean(images, (2, 3))
    prior = ((mean**2).sum() + ((deviation - 1) ** 2).sum()).item() / 5
    found = _loss(teacher, images, spread=spread, alpha_prior=2.0)
    assert found == pytest.approx(gaps + 2 * prior, rel=1e-3)


def test_an_image_is_not_judged_by_the_others(teacher: LoadedTeacher) -> None:
    """The loss of a batch is the mean of those of its images, which BN statistics of batches are
    not."""
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    alone = [_loss(teacher, image[None]) for image in images]
    assert _loss(teacher, images) == pytest.approx(sum(alone) / 4, rel=1e-4)


def test_one_value_has_no_spread() -> None:
    """A map of a single pixel: its variance is 0, with a finite gradient, not NaN."""
    model = nn.Sequential(
        nn.Conv2d(1, 3, 4), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(3, 2)
    )
    teacher = teacher_of(model, (1, 4, 4))
    images = torch.randn(2, 1, 4, 4, requires_grad=True)
    with image_statistics(teacher.graph) as statistics:
        teacher(images)
    ((mean, variance),) = statistics.values()
    assert mean.shape == (2, 3) and variance.tolist() == [[0.0] * 3] * 2
    (gradient,) = torch.autograd.grad((variance + 1e-6).sqrt().sum() + mean.sum(), images)
    assert gradient.isfinite().all()


def test_images_come_nearer_to_the_statistics(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """The teacher's arg-max labels them; later iterations have lower losses."""
    losses = []
    for iterations in (1, 30):
        spec = make_spec(method="zeroq", iterations=iterations, batch_size=16, lr=0.2)
        made, _ = synthesize(teacher, spec, tmp_path, progress=False)
        losses.append(sum(made.provenance["losses"]))
        assert torch.equal(made.labels, teacher(made.images.float()).argmax(1))
    assert losses[1] < 0.5 * losses[0]


def test_deviations_are_the_methods_own_choice(make_spec: MakeSpec) -> None:
    """Where nobody says what is compared it is ZeroQ's; labels cannot be asked for."""
    assert make_spec(method="zeroq").synthesis.spread == "deviation"
    assert make_spec(method="zeroq", spread="variance").synthesis.spread == "variance"
    assert make_spec().synthesis.spread == "variance"
    with pytest.raises(ValueError, match="`labels is random` must hold with method 'zeroq'"):
        make_spec(method="zeroq", labels="even")
