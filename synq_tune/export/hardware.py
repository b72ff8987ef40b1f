"""The form of a frozen network that integer runtimes recognise, as operations on its graph.

Runtimes compute an operation in integers when all it reads and all it gives is on a grid. So values
that were only moved (max pooling, flatten) get their source's grid again, biases lie on the grid of
the accumulator, input scale · weight scale, BatchNorms are gone, and averages over an image are one
kind of operation.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from synq_tune.errors import InputError
from synq_tune.export.absorb import absorb_batchnorms
from synq_tune.export.options import OnnxOptions
from synq_tune.export.pooling import unify_global_pools
from synq_tune.graph.attention import is_product, operands
from synq_tune.graph.nodes import find_nodes, insert_after, module_of, operation
from synq_tune.graph.operations import is_float_map, is_passthrough
from synq_tune.quantization.frozen import (
    FrozenActivation,
    FrozenConv2d,
    FrozenLinear,
    FrozenWeight,
    frozen_layers,
)
from synq_tune.quantization.student import ACTIVATION_PREFIX

_LAYERS = (FrozenConv2d, FrozenLinear)
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)
_NOTHING_TARGETS = (F.dropout, "contiguous", "detach", "clone", "float", "to", "type_as")
_LARGEST_BIAS = 2.0**30
"""Half of what an int32 accumulator holds; the other half is the sum's."""


def prepared(frozen: fx.GraphModule, options: OnnxOptions) -> fx.GraphModule:
    """The network as a file with these options holds it; `frozen` stays unchanged.

    Layers with an integer bias have the buffers `bias_codes` (O,) int32 and `bias_scale` (O,).

    Raises:
        InputError: biases are to be integers, but a weight has a zero point.
    """
    new = copy.deepcopy(frozen)
    if options.absorb_batchnorm:
        absorb_batchnorms(new)
    if options.integer_biases:
        _refuse_zero_points(new)
        unify_global_pools(new)
        _requantize_moved(new)
        _round_biases(new)
    return new


def reads_integers(frozen: fx.GraphModule) -> bool:
    """Whether integer hardware can run the network.

    Every layer, and each side of every product of an attention, reads a grid; no weight is shifted.
    """
    layers = find_nodes(frozen, lambda n, m: isinstance(m, _LAYERS))
    products = find_nodes(frozen, lambda n, m: is_product(n))
    read = [node.args[0] for node in layers] + [a for node in products for a in operands(node)]
    symmetric = not any(w.zero_point.any() for w in frozen_layers(frozen).values())
    return symmetric and all(_grid_of(frozen, source) is not None for source in read)


def input_grid(graph: fx.GraphModule, node: fx.Node) -> FrozenActivation | None:
    """The grid of what a node reads, found through nodes that only move values."""
    return _grid_of(graph, node.args[0])


def _grid_of(graph: fx.GraphModule, source: object) -> FrozenActivation | None:
    while isinstance(source, fx.Node):
        module = module_of(graph, source)
        if isinstance(module, FrozenActivation):
            return module
        source = source.args[0] if is_passthrough(graph, source) else None
    return None


def _refuse_zero_points(frozen: fx.GraphModule) -> None:
    # onnxruntime fuses such a layer and then refuses to run it; other integer runtimes know no
    # zero points of weights at all.
    for name, weight in frozen_layers(frozen).items():
        if weight.zero_point.any():
            raise InputError(
                f"`weights have zero point 0` must hold for integer hardware, but got layer={name} "
                f"with zero_point={weight.zero_point[weight.zero_point != 0][0]:.0f}. "
                "Quantize with quantizer: deploy."
            )


def is_nothing(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether the node gives back what it reads, in evaluation mode."""
    return isinstance(module, _NOTHING) or operation(node) in _NOTHING_TARGETS


def _requantize_moved(frozen: fx.GraphModule) -> None:
    for node in list(frozen.graph.nodes):
        module = module_of(frozen, node)
        has_grid = all(isinstance(module_of(frozen, u), FrozenActivation) for u in node.users)
        if (
            is_nothing(node, module)
            or has_grid
            or not is_passthrough(frozen, node)
            or not is_float_map(node)
        ):
            continue
        grid = input_grid(frozen, node)
        if grid is not None:
            insert_after(frozen, node, ACTIVATION_PREFIX + node.name, copy.deepcopy(grid))
    frozen.recompile()


@torch.no_grad()
def _round_biases(frozen: fx.GraphModule) -> None:
    calls: dict[str, list[FrozenActivation | None]] = {}
    for node in find_nodes(frozen, lambda n, m: isinstance(m, _LAYERS)):
        calls.setdefault(str(node.target), []).append(input_grid(frozen, node))
    for name, grids in calls.items():
        layer = frozen.get_submodule(name)
        # A layer called twice would need a bias for each grid it reads.
        if layer.bias is not None and len(grids) == 1 and grids[0] is not None:
            _round_bias(layer, grids[0].scale)


def _round_bias(layer: FrozenConv2d | FrozenLinear, input_scale: Tensor) -> None:
    bias = layer.bias.double()
    layer.frozen_weight = _coarse_enough(layer.frozen_weight, bias, input_scale)
    # The product in float32, as runtimes compute it.
    unit = input_scale * layer.frozen_weight.scale
    codes = torch.round(bias / unit.double())
    layer.register_buffer("bias_codes", codes.to(torch.int32))
    layer.register_buffer("bias_scale", unit)
    layer.bias = nn.Parameter((codes * unit.double()).float(), requires_grad=False)


def _coarse_enough(weight: FrozenWeight, bias: Tensor, input_scale: Tensor) -> FrozenWeight:
    """The weight with larger steps in channels whose bias would leave int32, which few ever have.

    Beside such a bias the weights count for next to nothing, so that rounding them again does too.
    """
    least = bias.abs() / _LARGEST_BIAS / input_scale.double()
    factor = (least / weight.scale.double()).clamp_min(1.0)
    if bool((factor == 1).all()):
        return weight
    shape = (-1, *[1] * (weight.codes.dim() - 1))
    codes = torch.round(weight.codes.double() / factor.view(shape))
    scale = (weight.scale.double() * factor).float()
    return FrozenWeight(codes, scale, weight.zero_point, weight.bits)
