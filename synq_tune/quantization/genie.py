"""Genie's grids (Jeon et al., CVPR 2023), and the same learned rounding on what integer hardware
runs.

Ranges are those of least mean |x - x_q|^2.4. Weights: per output channel, with a zero point.
Values: per tensor in front of every layer, without a zero point: codes count from 0 where the
values have one sign. Whatever reads a tensor with a grid, such as a shortcut, reads it from the
grid.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from synq_tune.graph.attention import open_attention
from synq_tune.quantization.affine import affine_parameters, code_limits
from synq_tune.quantization.base import Quantizer
from synq_tune.quantization.learned_rounding import LearnedRounding
from synq_tune.quantization.lsq import LsqActivation
from synq_tune.quantization.mixed import mixed
from synq_tune.quantization.placement import every_tensor
from synq_tune.quantization.placement_vit import multiplied_tensors
from synq_tune.quantization.primitives import Limits, on_grid

EXPONENT = 2.4
_COARSE = [number / 20 for number in range(20, 0, -1)]
_FINE = [number / 100 for number in (4, 3, 2, 1, -1, -2, -3, -4)]
_SAMPLED = 2**14
"""Values of a tensor that its range is searched on."""


class GenieWeight(LearnedRounding):
    """Asymmetric, per output channel."""

    @staticmethod
    def starting_grid(rows: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """Scale and zero point, each (O,), of the best shares of each row's range."""
        # With zero in the range the zero point is a code, also where all weights have one sign.
        low, high = rows.amin(1).clamp_max(0.0), rows.amax(1).clamp_min(0.0)

        def grid(share: Tensor) -> tuple[Tensor, Tensor]:
            return affine_parameters(low * share, high * share, bits)

        return grid(_best_shares(rows, grid, code_limits(bits)))


class GenieDeployWeight(LearnedRounding):
    """Symmetric without the lowest code, as `DeployWeight`."""

    has_zero_points = False

    def __init__(self, weight: Tensor, bits: int) -> None:
        super().__init__(weight, bits)
        self.limits = _symmetric(bits)

    @staticmethod
    def starting_grid(rows: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """Scale and zero point 0, each (O,), of the best shares of each row's range."""
        limits = _symmetric(bits)
        largest = rows.abs().amax(1).clamp_min(1e-8) / limits[1]
        zeros = torch.zeros_like(largest)
        share = _best_shares(rows, lambda share: (largest * share, zeros), limits)
        return largest * share, zeros


def _symmetric(bits: int) -> Limits:
    return -code_limits(bits)[1], code_limits(bits)[1]


def _best_shares(
    rows: Tensor, grid: Callable[[Tensor], tuple[Tensor, Tensor]], limits: Limits
) -> Tensor:
    """Share (O,) of each row's range with the least error on its weights (O, n).

    Twentieths are tried first, then hundredths around the best: all hundredths take four times as
    long, and a network of 11 million weights a minute.
    """
    best, least = torch.ones_like(rows[:, 0]), torch.full_like(rows[:, 0], torch.inf)
    for shares in (_COARSE, _FINE):
        centre = torch.zeros_like(best) if shares is _COARSE else best.clone()
        for share in shares:
            tried = (centre + share).clamp(0.01, 1.0)
            scale, zero = grid(tried)
            rounded = on_grid(rows, scale[:, None], zero[:, None], limits)
            error = rounded.sub_(rows).abs_().pow_(EXPONENT).mean(1)
            best = torch.where(error < least, tried, best)
            least = torch.minimum(error, least)
    return best


class DroppingActivation(LsqActivation):
    """LSQ's grid with QDrop (Wei et al., 2022): while a mask is given, what it says stays exact."""

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self._keeps: Callable[[Tensor], Tensor] | None = None

    def drop(self, keeps: Callable[[Tensor], Tensor] | None) -> None:
        self._keeps = keeps

    def forward(self, x: Tensor) -> Tensor:
        rounded = super().forward(x)
        return rounded if self._keeps is None else mixed(self._keeps(x), x, rounded)


class GenieActivation(DroppingActivation):
    """Symmetric where a value is below zero, else with codes for what is above it alone."""

    def observe(self, x: Tensor) -> None:
        """Take one batch's best range into account."""
        low, high = torch.aminmax(x)
        largest, is_signed = torch.maximum(high, -low), bool(low < 0)
        best = largest * _best_share(x.flatten(), largest, is_signed, self.bits)[0]
        self.observer.update(-best if is_signed else torch.zeros_like(best), best)

    def end_calibration(self) -> None:
        low, high = self.observer.range()
        scale, zero_point = _centred(torch.maximum(high, -low), bool(low < 0), self.bits)
        self.restart_scale(scale.clamp_min(1e-8))
        self.zero_point.fill_(zero_point)


def _centred(largest: Tensor, is_signed: bool, bits: int) -> tuple[Tensor, float]:
    """Scale and zero point of [-largest, largest], or of [0, largest]."""
    scale = largest * (1.0 + is_signed) / (2**bits - 1)
    return scale, 0.0 if is_signed else float(2 ** (bits - 1))


def _best_share(x: Tensor, largest: Tensor, is_signed: bool, bits: int) -> Tensor:
    """Share (1,) of the range with the least error on evenly spaced values of `x` (n,)."""
    x = x[:: max(1, x.numel() // _SAMPLED) | 1]

    def grid(share: Tensor) -> tuple[Tensor, Tensor]:
        scale, zero = _centred(largest * share, is_signed, bits)
        return scale.clamp_min(1e-8), torch.full_like(scale, zero)

    return _best_shares(x[None], grid, code_limits(bits))


GENIE = Quantizer(GenieWeight, GenieActivation, multiplied_tensors, open_attention)
"""The paper's."""
GENIE_DEPLOY = Quantizer(GenieDeployWeight, DroppingActivation, every_tensor)
"""Its learned rounding on the grids of `deploy`."""
