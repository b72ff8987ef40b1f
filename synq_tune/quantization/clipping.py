"""Clip latent weights to the range in which rounding costs least, before anything is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from synq_tune.quantization.affine import affine_parameters, dequantize, quantize
from synq_tune.quantization.quantizers import MinMaxWeight
from synq_tune.quantization.student import weight_layers

_SHRINKS = torch.linspace(1.0, 0.3, 29)


@torch.no_grad()
def clip_weights(student: nn.Module) -> None:
    """Clip each output channel of the min-max weights, in place.

    A min-max grid is as coarse as its channel's two outermost weights are far apart; where they are
    clipped first, the same quantizer has finer steps. Weights with learned steps stay as they are:
    their steps start from the least error already.
    """
    for layer in weight_layers(student).values():
        if isinstance(layer.weight_quantizer, MinMaxWeight):
            bits = layer.weight_quantizer.bits
            clipped = least_error_clip(layer.weight.flatten(1), bits)
            layer.weight.copy_(clipped.view_as(layer.weight))


def least_error_clip(rows: Tensor, bits: int) -> Tensor:
    """Rows (O, n) clipped to the share of their min-max range that has the least squared error."""
    low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    best, least = rows, torch.full_like(low, torch.inf)
    for share in _SHRINKS.tolist():
        grid = affine_parameters(low * share, high * share, bits)
        error = (
            (dequantize(quantize(rows, *grid, bits), *grid) - rows).square().sum(1, keepdim=True)
        )
        clipped = torch.clamp(rows, low * share, high * share)
        best = torch.where(error < least, clipped, best)
        least = torch.minimum(error, least)
    return best
