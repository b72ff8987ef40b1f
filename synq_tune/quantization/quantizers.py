"""The quantizer families: how a weight and an activation get their grid, and what learns.

Every weight quantizer answers `forward(weight)`, `parameters_of(weight)`, `limits` and
`has_zero_points`; every activation quantizer `forward(x)`, `parameters_of()`, `observe(x)`,
`end_calibration()`. Adding a family is one entry here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from synq_tune.quantization.affine import affine_parameters, code_limits, per_channel
from synq_tune.quantization.fake_quant import fake_quantize, learned_fake_quantize
from synq_tune.quantization.learned_scale import LearnedScale
from synq_tune.quantization.least_error import least_error_range
from synq_tune.quantization.observer import RangeObserver, least_squares, min_max
from synq_tune.quantization.placement import Placement, after_activations, every_tensor
from synq_tune.quantization.psaq import VitMinMaxActivation, VitMinMaxWeight
from synq_tune.quantization.transformers import (
    multiplied_tensors,
    prepare_ports,
    prepare_transformer,
    psaq_tensors,
)


class MinMaxWeight(nn.Module):
    """Asymmetric, per output channel, plain min-max of the latent weight at each forward."""

    has_zero_points = True

    def __init__(self, weight: Tensor, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.limits = code_limits(bits)

    def parameters_of(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point, each (O,), without gradient."""
        flat = weight.detach().flatten(1)
        return affine_parameters(flat.amin(1), flat.amax(1), self.bits)

    def forward(self, weight: Tensor) -> Tensor:
        scale, zero = (per_channel(v, weight) for v in self.parameters_of(weight))
        return fake_quantize(weight, scale, zero, self.limits)


class LsqWeight(LearnedScale):
    """Learned step size (Esser et al., 2020), one per output channel, on a grid that need not be symmetric.

    Step and zero point start from the range in which rounding costs least; the zero point, an integer
    within the code limits, then stays. A symmetric grid can leave half a channel's codes to weights
    that are not there: after calibration alone a 3-bit ResNet-20 reads 35 % of the CIFAR images with it and
    68 % with this one.
    """

    has_zero_points = True

    def __init__(self, weight: Tensor, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.limits = code_limits(bits)
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
        # With zero in the range the zero point is a code, and a channel of equal weights has a step.
        low = rows.amin(1, keepdim=True).clamp_max(0.0)
        high = rows.amax(1, keepdim=True).clamp_min(0.0)
        scale, zero_point = affine_parameters(*least_error_range(rows, low, high, bits), bits)
        return scale[:, 0], zero_point[:, 0]

    def parameters_of(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point, each (O,)."""
        return self.scale, self.zero_point

    def forward(self, weight: Tensor) -> Tensor:
        step, zero = (per_channel(v, weight) for v in self.parameters_of(weight))
        return _learned(weight, step, zero, self.limits, weight[0].numel())


def _power_of_two(rows: Tensor) -> Tensor:
    """The power of two below each row's largest magnitude (O,), 1/2 for zeros: dividing is exact."""
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


class CalibratedActivation(nn.Module):
    """Asymmetric, per tensor, on the range observed in calibration."""

    batch_range = staticmethod(min_max)

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.limits = code_limits(bits)
        self.observer = RangeObserver()
        self.register_buffer("zero_point", torch.zeros(()))

    def observe(self, x: Tensor) -> None:
        """Take one batch into account."""
        self.observer.update(*self.batch_range(x, self.bits))

    def end_calibration(self) -> None:
        """Fix the grid to the range observed."""
        scale, zero_point = affine_parameters(*self.observer.range(), self.bits)
        self.restart_scale(scale)
        self.zero_point.copy_(zero_point)

    def parameters_of(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point, scalars."""
        return self.scale, self.zero_point


class MinMaxActivation(CalibratedActivation):
    """Static range; identity gradient.

    With `masks_gradient` what lies beyond the grid passes no gradient.
    """

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.masks_gradient = False
        self.register_buffer("scale", torch.ones(()))

    def restart_scale(self, scale: Tensor) -> None:
        """Take a scale, a scalar."""
        self.scale.copy_(scale)

    def forward(self, x: Tensor) -> Tensor:
        grid = self.scale, self.zero_point, self.limits
        return fake_quantize(x, *grid, masks=self.masks_gradient)


class LsqActivation(LearnedScale, CalibratedActivation):
    """Learned step size, per tensor; starts from the range of least squared error."""

    batch_range = staticmethod(least_squares)

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self._learn_scale(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        scale, zero_point = self.parameters_of()
        return _learned(x, scale, zero_point, self.limits, x[0].numel())


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
        [((flat / s[:, None]).round().clamp(low, high) * s[:, None] - flat).square().sum(1)
         for s in candidates]
    )  # fmt: skip
    return candidates.gather(0, errors.argmin(0, keepdim=True))[0]


def _learned(
    x: Tensor, scale: Tensor, zero_point: Tensor, limits: tuple[int, int], per_step: int
) -> Tensor:
    """LSQ's forward; the step's gradient is scaled by 1/sqrt(values per step · largest code)."""
    factor = 1.0 / math.sqrt(per_step * limits[1])
    return learned_fake_quantize(x, scale, zero_point, limits, factor)


@dataclass(frozen=True)
class Quantizer:
    """A family: the class of its weight grids, of its activation grids, and where the latter go."""

    weight: type[nn.Module]
    """Its `has_zero_points` says whether any channel's grid may have one, which integer kernels refuse."""
    activation: type[nn.Module]
    placement: Placement
    prepare: Callable[[fx.GraphModule], None] = lambda graph: None
    """Rewrites a float graph in place into one whose tensors can have the grids; a model file's reader
    does the same again, so that names agree."""


QUANTIZERS: dict[str, Quantizer] = {
    "minmax": Quantizer(MinMaxWeight, MinMaxActivation, after_activations),
    "lsq": Quantizer(LsqWeight, LsqActivation, after_activations),
    "deploy": Quantizer(DeployWeight, LsqActivation, every_tensor),
    "vit_minmax": Quantizer(
        VitMinMaxWeight, VitMinMaxActivation, psaq_tensors, prepare_transformer
    ),
    "vit_lsq": Quantizer(SymmetricLsqWeight, LsqActivation, multiplied_tensors, prepare_ports),
}
