"""Clip latent weights to the range in which rounding costs least, before anything is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from synq_tune.quantization.least_error import least_error_range
from synq_tune.quantization.quantizers import MinMaxWeight
from synq_tune.quantization.student import weight_layers


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
    return torch.clamp(rows, *least_error_range(rows, low, high, bits))
