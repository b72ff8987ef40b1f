"""Convolutions and linear layers whose weight goes through a quantizer."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn


class _QuantizedWeight:
    """A layer with `weight_quantizer`; the float weight stays as the latent parameter."""

    def quantized_weight(self) -> Tensor:
        """The weight on its grid, shape of the weight; gradients reach the latent weight."""
        return self.weight_quantizer(self.weight)

    @torch.no_grad()
    def integer_weight(self) -> tuple[Tensor, Tensor, Tensor]:
        """(codes int8 of the weight's shape, scale (O,), zero_point int (O,))."""
        quantizer = self.weight_quantizer
        scale, zero_point = quantizer.qparams(self.weight)
        return (
            quantizer.codes(self.weight).to(torch.int8),
            scale.float(),
            zero_point.to(torch.int32),
        )


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


_WEIGHT_ARGUMENT = {F.conv2d: 1, torch.conv2d: 1, F.linear: 1, F.conv_transpose2d: 1}


def computed_weight(graph: fx.GraphModule, node: fx.Node) -> str | None:
    """Name of a call whose weight learns but belongs to no layer (mixed experts, standardised), or
    None.

    A fixed filter, such as a blur, is no weight: nothing in it was learned.
    """
    if node.op != "call_function" or node.target not in _WEIGHT_ARGUMENT:
        return None
    position = _WEIGHT_ARGUMENT[node.target]
    weight = node.args[position] if len(node.args) > position else node.kwargs.get("weight")
    return f"{node.target.__name__} at {node.name}" if _reads_parameter(graph, weight) else None


def _reads_parameter(graph: fx.GraphModule, node: object) -> bool:
    pending, seen = [node], set()
    while pending:
        source = pending.pop()
        if not isinstance(source, fx.Node) or source in seen:
            continue
        seen.add(source)
        if source.op == "get_attr" and isinstance(_attribute(graph, source), nn.Parameter):
            return True
        pending += source.all_input_nodes
    return False


def _attribute(graph: fx.GraphModule, node: fx.Node) -> object:
    parent, _, name = str(node.target).rpartition(".")
    return getattr(graph.get_submodule(parent), name)
