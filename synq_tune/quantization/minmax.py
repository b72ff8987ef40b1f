"""The paper's grids: plain min-max ranges, rounded to nearest, identity gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from synq_tune.quantization.affine import affine_parameters, per_channel
from synq_tune.quantization.base import CalibratedActivation, Quantizer, WeightQuantizer
from synq_tune.quantization.mse_range import least_error_clip
from synq_tune.quantization.placement import after_activations
from synq_tune.quantization.primitives import fake_quantize


class MinMaxWeight(WeightQuantizer):
    """Asymmetric, per output channel, plain min-max of the latent weight at each forward."""

    has_zero_points = True

    def __init__(self, weight: Tensor, bits: int) -> None:
        super().__init__(bits)

    def qparams(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point, each (O,), without gradient."""
        flat = weight.detach().flatten(1)
        return affine_parameters(flat.amin(1), flat.amax(1), self.bits)

    def forward(self, weight: Tensor) -> Tensor:
        scale, zero = (per_channel(v, weight) for v in self.qparams(weight))
        return fake_quantize(weight, scale, zero, self.limits)

    def clip(self, weight: Tensor) -> Tensor:
        """Each channel clipped to the share of its range that rounding costs least.

        A min-max grid is as coarse as its channel's two outermost weights are far apart; where they
        are clipped first, the same quantizer has finer steps.
        """
        return least_error_clip(weight.flatten(1), self.bits).view_as(weight)


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

    def clip(self, share: float) -> None:
        self.scale.mul_(share)

    def mask_gradient(self) -> None:
        self.masks_gradient = True


MINMAX = Quantizer(MinMaxWeight, MinMaxActivation, after_activations)
"""The paper's."""
