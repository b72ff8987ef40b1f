"""Which parameter moves how far: by owner and by size, whatever its name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from synq_tune.config import Bits, FineTune
from synq_tune.finetune.optimizer import optimizer_of, set_lr, update
from synq_tune.finetune.rates import channel_sizes
from synq_tune.quantization.learned_scale import learned_scales
from synq_tune.quantization.student import calibrate, quantize_student
from tests.helpers import teacher_of

NAMES = ("scale", "zero_point", "log_ratio", "initial_scale", "log_scale", "theta")


class _Named(nn.Module):
    """A network whose own parameters have the names of quantizers' tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.act, self.pool, self.fc = nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Linear(4, 3)
        for name in NAMES:
            self.register_parameter(name, nn.Parameter(torch.full((4, 1, 1), 0.5)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        for name in NAMES:
            x = x * (1 + getattr(self, name))
        return self.fc(self.pool(self.act(x)).flatten(1))


def _student(quantizer: str = "lsq", network: nn.Module | None = None) -> fx.GraphModule:
    student = quantize_student(
        teacher_of(network or _Named(), (1, 6, 6)), Bits(weights=3, activations=3), quantizer
    )
    calibrate(student, [torch.randn(8, 1, 6, 6)])
    return student


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("quantizer", ["lsq", "deploy", "minmax"])
def test_a_networks_own_scales_are_ordinary_parameters(quantizer: str, relative: bool) -> None:
    """They decay and move at the rate of weights; only what quantizers own has the steps' rate."""
    student = _student(quantizer)
    config = FineTune(step_lr_factor=3.0, lr_relative=relative, optimizer="adam", weight_decay=0.1)
    groups = {p: g for g in optimizer_of(student, config).param_groups for p in g["params"]}
    assert groups.keys() == set(student.parameters())
    scales = learned_scales(student)
    assert bool(scales) == (quantizer != "minmax")
    for name, parameter in student.named_parameters():
        group = groups[parameter]
        assert group["weight_decay"] == (0.0 if parameter in scales else 0.1), name
        if name in NAMES:
            assert group["lr_factor"] == (0.5 if relative else 1.0), name
        if parameter in scales and relative:
            assert group["lr_factor"] == 3.0


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("relative", [False, True])
def test_scales_that_are_alike_move_as_if_they_were_the_parameter(
    optimizer: str, relative: bool
) -> None:
    """An absolute rate keeps its meaning: one small update moves a scale by what it always did."""
    student = _student()
    owner = student.conv.weight_quantizer
    owner.restart_scale(torch.full((4,), 0.05))
    config = FineTune(
        optimizer=optimizer, lr=1e-4, lr_relative=relative, step_lr_factor=0.5, weight_decay=0.0
    )
    student(torch.randn(8, 1, 6, 6)).square().mean().mul(1e-2).backward()
    slope = owner.log_ratio.grad / 0.05  # of the loss by the scale
    moving = optimizer_of(student, config)
    set_lr(moving, config.lr)
    before = owner.scale.detach()
    update(moving, None)
    direction = slope.sign() if optimizer == "adam" else slope * 1.9  # Nesterov's first step
    expected = -1e-4 * 0.5 * direction * (0.05 if relative else 1.0)
    torch.testing.assert_close(owner.scale.detach() - before, expected, rtol=0.02, atol=1e-8)


def test_biases_scale_with_their_channel_only_where_a_batchnorm_follows() -> None:
    """Behind another operation a bias is no part of what is undone: it moves as one tensor."""
    student = _student()
    sizes = channel_sizes(student)
    assert {student.conv.weight, student.conv.bias, student.fc.weight} == sizes.keys()
    per_channel = sizes[student.conv.weight].flatten()
    shares = sizes[student.conv.bias] / per_channel
    torch.testing.assert_close(shares, shares[:1].expand(4))


def test_channels_of_zeros_move_a_little_and_stay_finite() -> None:
    """A pruned channel is neither frozen nor enlarged at once to the others' size."""
    network = _Named()
    with torch.no_grad():
        network.conv.weight[1] = 0.0
    student = _student("minmax", network)
    config = FineTune(optimizer="adam", lr=1e-2, lr_relative=True)
    moving = optimizer_of(student, config)
    for _ in range(5):
        student(torch.randn(8, 1, 6, 6)).square().sum().backward()
        update(moving, 1.0)
        moving.zero_grad()
    sizes = student.conv.weight.detach().flatten(1).abs().amax(1)
    assert 0 < sizes[1] < 1e-3 * sizes[[0, 2, 3]].max()
    assert all(p.isfinite().all() for p in student.parameters())


@pytest.mark.parametrize("largest", [1e-30, 1e-20, 1e20])
def test_sizes_of_extreme_channels_are_measured(largest: float) -> None:
    """Squares of the smallest floats are 0, of the largest infinite; their roots are neither."""
    network = _Named()
    with torch.no_grad():
        network.conv.weight[0] = largest
    sizes = channel_sizes(_student(network=network))
    assert float(next(iter(sizes.values())).flatten()[0]) == pytest.approx(largest, rel=1e-5)
