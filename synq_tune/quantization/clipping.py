"""Clip weights, and values, to less than their range: the same quantizer then has finer steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from synq_tune.quantization.minmax import MinMaxActivation, MinMaxWeight
from synq_tune.quantization.mse_range import mse_range
from synq_tune.quantization.student import activation_quantizers, weight_layers


@torch.no_grad()
def clip_weights(student: nn.Module) -> None:
    """Clip each output channel of the min-max weights, in place.

    A min-max grid is as coarse as its channel's two outermost weights are far apart; where they are
    clipped first, the same quantizer has finer steps. Weights with learned steps stay as they are:
    their grids start from the least error already.
    """
    for layer in weight_layers(student).values():
        if isinstance(layer.weight_quantizer, MinMaxWeight):
            bits = layer.weight_quantizer.bits
            clipped = least_error_clip(layer.weight.flatten(1), bits)
            layer.weight.copy_(clipped.view_as(layer.weight))


def least_error_clip(rows: Tensor, bits: int) -> Tensor:
    """Rows (O, n) clipped to the share of their min-max range that has the least squared error."""
    low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    return torch.clamp(rows, *mse_range(rows, low, high, bits))


@torch.no_grad()
def narrow_ranges(student: nn.Module, share: float, bits: int) -> None:
    """Let the calibrated static ranges of values cover only a share of themselves, in place.

    Learned steps stay: they start from the least error and find their own range.

    Args:
        student: calibrated.
        share: in (0, 1].
        bits: of the grids to narrow; wider ones, such as of skips, have steps enough.
    """
    for quantizer in _static_ranges(student, bits):
        quantizer.scale.mul_(share)


def mask_gradients(student: nn.Module, bits: int) -> None:
    """Let values beyond the static ranges of `bits` pass no gradient.

    Weights otherwise follow gradients that change no output: at 3 bits long training then ends lower than
    short, with whole ranges too.
    """
    for quantizer in _static_ranges(student, bits):
        quantizer.masks_gradient = True


def _static_ranges(student: nn.Module, bits: int) -> list[MinMaxActivation]:
    return [
        grid for grid in activation_quantizers(student).values()
        if isinstance(grid, MinMaxActivation) and grid.bits == bits
    ]  # fmt: skip
