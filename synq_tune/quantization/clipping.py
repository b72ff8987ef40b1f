"""Clip weights, and values, to less than their range: the same quantizer then has finer steps."""

from __future__ import annotations

import torch
from torch import nn

from synq_tune.quantization.base import ActivationQuantizer
from synq_tune.quantization.student import activation_quantizers, weight_layers


@torch.no_grad()
def clip_weights(student: nn.Module) -> None:
    """Clip each layer's weights as its grid has it, in place; see `WeightQuantizer.clip`."""
    for layer in weight_layers(student).values():
        layer.weight.copy_(layer.weight_quantizer.clip(layer.weight))


@torch.no_grad()
def narrow_ranges(student: nn.Module, share: float, bits: int) -> None:
    """Let calibrated ranges of values cover only a share of themselves; see
    `ActivationQuantizer.clip`.

    Args:
        student: calibrated.
        share: in (0, 1].
        bits: of the widest grids to narrow; wider ones, such as of skips, have steps enough.
    """
    for quantizer in _grids(student, bits):
        quantizer.clip(share)


def mask_gradients(student: nn.Module, bits: int) -> None:
    """Let values beyond the calibrated ranges of at most `bits` pass no gradient.

    Weights otherwise follow gradients that change no output: at 3 bits long training then ends
    lower than short, with whole ranges too.
    """
    for quantizer in _grids(student, bits):
        quantizer.mask_gradient()


def _grids(student: nn.Module, bits: int) -> list[ActivationQuantizer]:
    return [grid for grid in activation_quantizers(student).values() if grid.bits <= bits]
