"""What every family's grids of values have in common: a range observed in calibration."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from synq_tune.quantization.affine import affine_parameters, code_limits
from synq_tune.quantization.ranges import MovingAverageMinMaxObserver, min_max


class CalibratedActivation(nn.Module):
    """Asymmetric, per tensor, on the range observed in calibration."""

    batch_range = staticmethod(min_max)

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.limits = code_limits(bits)
        self.observer = MovingAverageMinMaxObserver()
        self.register_buffer("zero_point", torch.zeros(()))

    def observe(self, x: Tensor) -> None:
        """Take one batch into account."""
        self.observer.update(*self.batch_range(x, self.bits))

    def end_calibration(self) -> None:
        """Fix the grid to the range observed."""
        scale, zero_point = affine_parameters(*self.observer.range(), self.bits)
        self.restart_scale(scale)
        self.zero_point.copy_(zero_point)

    def qparams(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point, scalars."""
        return self.scale, self.zero_point
