"""What a BatchNorm undoes, the size of a channel, changes nothing of a training."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from synq_tune.config import Bits, FineTune
from synq_tune.data.synthetic import SyntheticDataset
from synq_tune.finetune.loop import finetune
from synq_tune.quantization.learned_scale import learned_scales
from synq_tune.quantization.student import calibrate, quantize_student
from synq_tune.views.source import ViewSource
from synq_tune.views.teacher_cache import make_views
from tests.helpers import teacher_of

SETTINGS = {
    "epochs": 3, "batch_size": 8, "num_views": 1, "flip": False, "crop_scale": None, "d0": None,
    "optimizer": "adam", "lr": 1e-2, "lr_relative": True, "step_lr_factor": 3.0, "norm_lr_factor": 0.2,
    "grad_clip": 0.05, "calibration_batches": 1, "weight_decay": 1e-2,
}  # fmt: skip


def _network(seed: int, eps: float) -> nn.Sequential:
    """A chain of ordinary, grouped and depthwise convolutions, with and without bias, all normalised."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *choices: choices[int(torch.randint(len(choices), (), generator=generator))]  # noqa: E731
    layers, width = [], 2
    for _ in range(3):
        groups, new = draw((1, 8), (2, 6), (width, 2 * width))
        conv = nn.Conv2d(width, new, 3, padding=1, groups=groups, bias=draw(True, False))
        layers += [conv, nn.BatchNorm2d(new, momentum=1.0), draw(nn.ReLU(), nn.ReLU6(), nn.SiLU())]
        width = new
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4)]
    network = nn.Sequential(*layers)
    network.train()(3 * torch.randn(64, 2, 6, 6, generator=generator))
    for layer in network:
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = eps
            nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(layer.bias, generator=generator)
    return network.eval()


@torch.no_grad()
def _rescaled(
    network: nn.Sequential, factors: list[float], seed: int
) -> tuple[nn.Sequential, dict]:
    """The same function with other sizes of channels, and the factor (O, 1, …) of each parameter."""
    generator = torch.Generator().manual_seed(seed)
    network, by_name = copy.deepcopy(network), {}
    for number, (conv, norm) in enumerate(zip(network, network[1:], strict=False)):
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        choice = torch.randint(len(factors), (len(conv.weight),), generator=generator)
        factor = torch.tensor(factors)[choice]
        by_name[f"{number}.weight"] = factor.view(-1, 1, 1, 1)
        conv.weight.mul_(by_name[f"{number}.weight"])
        if conv.bias is not None:
            by_name[f"{number}.bias"] = factor
            conv.bias.mul_(factor)
        norm.running_mean.mul_(factor)
        norm.running_var.copy_(
            (norm.running_var + norm.eps).double() * factor.double() ** 2 - norm.eps
        )
    return network, by_name


def _train(network: nn.Sequential, quantizer: str) -> tuple[list[dict], dict[str, Tensor], list]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(16, 2, 6, 6, generator=generator).half()
    labels = torch.randint(0, 4, (16,), generator=generator)
    dataset = SyntheticDataset(images, labels, 0, "noise", "0" * 32, "0" * 64, Path("none"), {})
    teacher = teacher_of(network, (2, 6, 6))
    config = FineTune(**SETTINGS)
    views = make_views(teacher, dataset, config)
    source = ViewSource(dataset.train_images, dataset.train_labels, views, config, 0)
    student = quantize_student(teacher, Bits(weights=3, activations=4), quantizer)
    calibrate(student, source.calibration_images())
    rows = [row.losses for row in finetune(student, source, config)]
    scales = [quantizer.scale.detach() for quantizer in learned_scales(student).values()]
    return rows, dict(student.named_parameters()), scales


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("quantizer", ["lsq", "deploy", "minmax"])
def test_powers_of_two_leave_every_bit(quantizer: str, seed: int) -> None:
    """Losses and all parameters of random networks, with clipped gradients and decayed weights."""
    network = _network(seed, eps=0.0)
    other, factors = _rescaled(network, [1.0, 2.0**-14, 2.0**-5, 2.0**13], seed)
    (rows, parameters, _), (others, moved, _) = (_train(n, quantizer) for n in (network, other))
    assert rows == others
    for name, value in parameters.items():
        assert torch.equal(value * factors.get(name, 1.0), moved[name]), name


@pytest.mark.parametrize("quantizer", ["lsq", "deploy", "minmax"])
@pytest.mark.parametrize("factor", [1 / 40, 1e-4, 1e4])
def test_any_factor_leaves_the_training(quantizer: str, factor: float) -> None:
    """Up to rounding: a value between two codes may fall to either side."""
    network = _network(5, eps=1e-12)
    other, _ = _rescaled(network, [1.0, factor], seed=5)
    (rows, _, scales), (others, _, moved) = (_train(n, quantizer) for n in (network, other))
    assert others[0]["total"] == pytest.approx(rows[0]["total"], rel=1e-4)
    assert others[-1]["total"] == pytest.approx(rows[-1]["total"], rel=0.02)
    assert rows[-1] != rows[0]
    assert all(bool((scale > 0).all()) for scale in [*scales, *moved])
