"""Convolutions and linear layers whose weight goes through a quantizer."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from synq_tune.quantization.affine import per_channel, quantize


class _QuantizedWeight:
    """A layer with `weight_quantizer`; the float weight stays as the latent parameter."""

    def quantized_weight(self) -> Tensor:
        """The weight on its grid, shape of the weight; gradients reach the latent weight."""
        return self.weight_quantizer(self.weight)

    @torch.no_grad()
    def integer_weight(self) -> tuple[Tensor, Tensor, Tensor]:
        """(codes int8 of the weight's shape, scale (O,), zero_point int (O,))."""
        quantizer = self.weight_quantizer
        scale, zero_point = quantizer.parameters_of(self.weight)
        grid = per_channel(scale, self.weight), per_channel(zero_point, self.weight)
        codes = quantize(self.weight, *grid, quantizer.bits)
        return codes.to(torch.int8), scale.float(), zero_point.to(torch.int32)


class QuantizedConv2d(_QuantizedWeight, nn.Conv2d):
    """nn.Conv2d on the quantized weight; the bias stays float."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.quantized_weight(), self.bias)


class QuantizedLinear(_QuantizedWeight, nn.Linear):
    """nn.Linear on the quantized weight; the bias stays float."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.quantized_weight(), self.bias)


QUANTIZED_LAYERS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: QuantizedConv2d,
    nn.Linear: QuantizedLinear,
}


def quantized_layer(layer: nn.Module, weight_quantizer: nn.Module) -> nn.Module:
    """A copy of `layer` (exactly a Conv2d or Linear) with its own parameters and the quantizer."""
    new = copy.deepcopy(layer)
    new.__class__ = QUANTIZED_LAYERS[type(layer)]
    new.weight_quantizer = weight_quantizer
    return new.requires_grad_(True)
