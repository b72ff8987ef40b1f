"""Learned step sizes (LSQ, Esser et al., 2020), on grids with a zero point and without."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from synq_tune.quantization.affine import affine_parameters, code_limits, per_channel
from synq_tune.quantization.base import CalibratedActivation, Quantizer, WeightQuantizer
from synq_tune.quantization.learned_scale import LearnedScale
from synq_tune.quantization.mse_range import mse_range
from synq_tune.quantization.placement import after_activations, every_tensor
from synq_tune.quantization.placement_vit import multiplied_tensors, prepare_branches
from synq_tune.quantization.primitives import learned_fake_quantize
from synq_tune.quantization.ranges import (
    least_squares,
    symmetric_least_squares,
    symmetric_scale,
)


class LsqWeight(LearnedScale, WeightQuantizer):
    """Learned step size (Esser et al., 2020), one per output channel, on a grid that need not be
    symmetric.

    Step and zero point start from the range in which rounding costs least; the zero point, an
    integer within the code limits, then stays. A symmetric grid can leave half a channel's codes to
    weights that are not there: after calibration alone a 3-bit ResNet-20 reads 35 % of the CIFAR
    images with it and 68 % with this one.
    """

    has_zero_points = True

    def __init__(self, weight: Tensor, bits: int) -> None:
        super().__init__(bits)
        scale, zero_point = self._start(weight.detach().flatten(1))
        self._learn_scale(scale)
        self.register_buffer("zero_point", zero_point)

    def _start(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """`starting_grid` of rows of any size; a row of zeros takes the others' middle step."""
        unit = _power_of_two(rows)
        scale, zero_point = self.starting_grid(rows / unit[:, None], self.bits)
        scale, is_alive = scale * unit, rows.any(1)
        if is_alive.any():
            scale = torch.where(is_alive, scale, scale[is_alive].median())
            zero_point = torch.where(is_alive, zero_point, 0.0)
        return scale, zero_point

    @staticmethod
    def starting_grid(rows: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """Scale and zero point, each (O,), for the weights (O, n) of the output channels."""
        # With zero in the range the zero point is a code, and a channel of equal weights has a
        # step.
        low = rows.amin(1, keepdim=True).clamp_max(0.0)
        high = rows.amax(1, keepdim=True).clamp_min(0.0)
        scale, zero_point = affine_parameters(*mse_range(rows, low, high, bits), bits)
        return scale[:, 0], zero_point[:, 0]

    def qparams(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point, each (O,)."""
        return self.scale, self.zero_point

    def forward(self, weight: Tensor) -> Tensor:
        step, zero = (per_channel(v, weight) for v in self.qparams(weight))
        return _learned(weight, step, zero, self.limits, weight[0].numel())


def _power_of_two(rows: Tensor) -> Tensor:
    """The power of two below each row's largest magnitude (O,), 1/2 for zeros: dividing is
    exact."""
    _, exponent = torch.frexp(rows.abs().amax(1))
    return torch.ldexp(torch.ones_like(rows[:, 0]), exponent - 1)


class SymmetricLsqWeight(LsqWeight):
    """Learned steps with zero point 0, as integer kernels ask for it."""

    has_zero_points = False

    @staticmethod
    def starting_grid(rows: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """Of 40 steps below the largest weight's the one with the least squared error, and 0."""
        scale = _symmetric_steps(rows, bits)
        return scale, torch.zeros_like(scale)


class LsqActivation(LearnedScale, CalibratedActivation):
    """Learned step size, per tensor; starts from the range of least squared error."""

    batch_range = staticmethod(least_squares)

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self._learn_scale(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        scale, zero_point = self.qparams()
        return _learned(x, scale, zero_point, self.limits, x[0].numel())


class SymmetricLsqActivation(LsqActivation):
    """Learned step size with zero point 0, as TensorRT asks for it.

    Behind a ReLU half of the codes are never used: the grid is as fine as one of a bit less.
    """

    batch_range = staticmethod(symmetric_least_squares)

    def end_calibration(self) -> None:
        self.restart_scale(symmetric_scale(self.observer.range()[1], self.bits))
        self.zero_point.zero_()


class DeployWeight(SymmetricLsqWeight):
    """Symmetric without the lowest code: -(2^(k-1) - 1) … 2^(k-1) - 1, zero point 0.

    A channel can change its sign, which absorbing a BatchNorm with a negative factor needs, and
    hardware that multiplies two signed 8-bit values never meets -128 · -128.
    """

    def __init__(self, weight: Tensor, bits: int) -> None:
        super().__init__(weight, bits)
        self.limits = (-code_limits(bits)[1], code_limits(bits)[1])


def _symmetric_steps(flat: Tensor, bits: int) -> Tensor:
    low, high = code_limits(bits)
    largest = flat.abs().amax(1).clamp_min(1e-8) / high
    candidates = torch.linspace(0.25, 1.0, 40, device=flat.device)[:, None] * largest  # (S, O)
    errors = torch.stack(
        [
            ((flat / s[:, None]).round().clamp(low, high) * s[:, None] - flat).square().sum(1)
            for s in candidates
        ]
    )
    return candidates.gather(0, errors.argmin(0, keepdim=True))[0]


def _learned(
    x: Tensor, scale: Tensor, zero_point: Tensor, limits: tuple[int, int], per_step: int
) -> Tensor:
    """LSQ's forward; the step's gradient is scaled by 1/sqrt(values per step · largest code)."""
    factor = 1.0 / math.sqrt(per_step * limits[1])
    return learned_fake_quantize(x, scale, zero_point, limits, factor)


LSQ = Quantizer(LsqWeight, LsqActivation, after_activations)
"""Learned steps at the paper's places."""
DEPLOY = Quantizer(DeployWeight, LsqActivation, every_tensor)
"""What integer hardware runs."""
DEPLOY_SYMMETRIC = Quantizer(DeployWeight, SymmetricLsqActivation, every_tensor)
"""What integer hardware without zero points runs."""
VIT_LSQ = Quantizer(SymmetricLsqWeight, LsqActivation, multiplied_tensors, prepare_branches)
"""Learned steps in front of a transformer's multiplications."""
