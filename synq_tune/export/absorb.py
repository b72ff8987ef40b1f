"""BatchNorm absorbed into the layer before it, as integer hardware computes it.

A BatchNorm multiplies each output channel by g = gamma / sqrt(var + eps) and shifts it. Both go
into what the layer has anyway: g into the channel's scale, the shift into its bias. No code
changes, except where g < 0: scales stay positive, so the channel's codes change their sign.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, fx, nn

from synq_tune.graph.nodes import find_nodes, module_of
from synq_tune.quantization.frozen import FrozenConv2d, FrozenLinear, FrozenWeight

_BATCHNORM_OF = {FrozenConv2d: nn.BatchNorm2d, FrozenLinear: nn.BatchNorm1d}


@torch.no_grad()
def absorb_batchnorms(frozen: fx.GraphModule) -> None:
    """Absorb, in place, every BatchNorm that alone reads a layer's output.

    BatchNorms in front of a layer (pre-activation networks) stay, and so do those behind a layer
    that is called more than once: one set of scales cannot hold two factors.
    """
    for layer_node, norm_node in _pairs(frozen):
        _absorb(module_of(frozen, layer_node), module_of(frozen, norm_node))
        norm_node.replace_all_uses_with(layer_node)
        frozen.graph.erase_node(norm_node)
    frozen.delete_all_unused_submodules()
    frozen.recompile()


def _pairs(frozen: fx.GraphModule) -> list[tuple[fx.Node, fx.Node]]:
    layers = find_nodes(frozen, lambda n, m: type(m) in _BATCHNORM_OF)
    calls = Counter(id(module_of(frozen, node)) for node in layers)
    pairs = [(n, _norm_behind(frozen, n)) for n in layers if calls[id(module_of(frozen, n))] == 1]
    return [(node, norm) for node, norm in pairs if norm is not None]


def _norm_behind(frozen: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The BatchNorm that is the layer's only user, with constant statistics of its channels."""
    user = next(iter(node.users)) if len(node.users) == 1 else None
    layer, norm = module_of(frozen, node), user and module_of(frozen, user)
    if type(norm) is not _BATCHNORM_OF[type(layer)] or norm.running_var is None:
        return None
    # Behind a Linear on (N, L, O) a BatchNorm1d would normalise over L.
    is_flat = isinstance(layer, nn.Conv2d) or len(node.meta.get("shape") or ()) == 2
    return user if is_flat else None


def _absorb(layer: FrozenConv2d | FrozenLinear, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    weight = layer.frozen_weight
    factor, offset = affine_of(norm)
    bias = offset if layer.bias is None else offset + layer.bias.double() * factor
    codes, zero_point = _mirrored(weight, factor < 0)
    scale = (weight.scale.double() * factor.abs()).float()
    # A factor of 0, or one that takes the scale below the normal floats, leaves the bias alone: all
    # codes become 0. The scale keeps its size, since runtimes divide by it.
    silent = scale < torch.finfo(torch.float32).tiny
    codes[silent], zero_point[silent] = 0, 0
    scale = torch.where(silent, weight.scale, scale)
    layer.frozen_weight = FrozenWeight(codes, scale, zero_point, weight.bits)
    layer.bias = nn.Parameter(bias.float(), requires_grad=False)


def affine_of(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Factor and offset of each channel, float64."""
    factor = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        factor = factor * norm.weight.double()
    offset = -norm.running_mean.double() * factor
    return factor, offset if norm.bias is None else offset + norm.bias.double()


def _mirrored(weight: FrozenWeight, negative: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and zero points with the sign changed in the `negative` (O,) channels.

    A symmetric channel without the lowest code is negated and stays symmetric. Any other takes the
    complement q' = -1 - q, which fits the same bits, with zero point 1 - z: q' + z' = -(q + z).
    """
    codes, zero_point = weight.codes.clone(), weight.zero_point.clone()
    lowest = weight.codes.flatten(1).amin(1) == -(2 ** (weight.bits - 1))
    symmetric = (zero_point == 0) & ~lowest
    negated, complement = negative & symmetric, negative & ~symmetric
    codes[negated] = -codes[negated]
    codes[complement] = -1 - codes[complement]
    zero_point[complement] = 1 - zero_point[complement]
    return codes, zero_point
