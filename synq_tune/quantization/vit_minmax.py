"""PSAQ-ViT's grids to the letter (Li et al., 2022): min-max, nothing learned, an identity gradient.

Weights: symmetric per output channel, s = max|w| / ((2^k - 1) / 2), so that +max|w| rounds up and
is clipped to the largest code. Activations: asymmetric per tensor, s = (max - min) / (2^k - 1) with
the zero point -round(min / s) held in 0 … 2^k - 1; min and max are those of all calibration images,
and 0 lies between them, so that the zero point is a code where all values have one sign. PSAQ's own
code has no backward; the identity here is what lets a student with these grids be trained.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from synq_tune.quantization.affine import per_channel
from synq_tune.quantization.base import ActivationQuantizer, Quantizer, WeightQuantizer
from synq_tune.quantization.placement_vit import prepare_transformer, psaq_tensors
from synq_tune.quantization.primitives import fake_quantize


class MinMaxObserver(nn.Module):
    """Smallest and largest value of every batch seen."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(torch.inf))
        self.register_buffer("high", torch.tensor(-torch.inf))

    @torch.no_grad()
    def update(self, low: Tensor, high: Tensor) -> None:
        """Take one batch's smallest and largest value into account."""
        torch.minimum(self.low, low.float(), out=self.low)
        torch.maximum(self.high, high.float(), out=self.high)


class VitMinMaxWeight(WeightQuantizer):
    """Symmetric, per output channel, plain min-max of the latent weight at each forward."""

    has_zero_points = False

    def __init__(self, weight: Tensor, bits: int) -> None:
        super().__init__(bits)

    def qparams(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point (0), each (O,), without gradient."""
        largest = weight.detach().flatten(1).abs().amax(1)
        scale = (largest / ((2**self.bits - 1) / 2)).clamp_min(1e-8)
        return scale, torch.zeros_like(scale)

    def forward(self, weight: Tensor) -> Tensor:
        scale, zero = (per_channel(v, weight) for v in self.qparams(weight))
        return fake_quantize(weight, scale, zero, self.limits)


class VitMinMaxActivation(ActivationQuantizer):
    """Asymmetric, per tensor, over the range of all calibration images."""

    observes_float = True

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.observer = MinMaxObserver()
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("zero_point", torch.zeros(()))

    def observe(self, x: Tensor) -> None:
        """Take one batch into account."""
        self.observer.update(*torch.aminmax(x))

    def end_calibration(self) -> None:
        """Fix the grid to the range observed."""
        levels = 2**self.bits - 1
        # A range that misses zero would be moved until it has it, and lose its other end.
        low, high = self.observer.low.clamp_max(0.0), self.observer.high.clamp_min(0.0)
        scale = ((high - low) / levels).clamp_min(1e-8)
        unsigned = (-torch.round(low / scale)).clamp(0, levels)
        self.scale.copy_(scale)
        # Codes here are signed: code + zero point counts from PSAQ's own.
        self.zero_point.copy_(2 ** (self.bits - 1) - unsigned)

    def qparams(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point, scalars."""
        return self.scale, self.zero_point

    def forward(self, x: Tensor) -> Tensor:
        return fake_quantize(x, self.scale, self.zero_point, self.limits)


VIT_MINMAX = Quantizer(VitMinMaxWeight, VitMinMaxActivation, psaq_tensors, prepare_transformer)
"""PSAQ-ViT's."""
