"""What is quantized in a student, and what stays float and why: read off the student itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import fx, nn

from synq_tune.graph.activations import is_known_activation
from synq_tune.graph.attention import is_product, operands
from synq_tune.graph.batchnorm import batchnorm_layers
from synq_tune.graph.branches import is_identity
from synq_tune.graph.gates import may_be_gate
from synq_tune.graph.nodes import module_of
from synq_tune.graph.operations import (
    is_float_map,
    is_fused,
    is_logits,
    is_passthrough,
    is_sum,
    only_user,
)
from synq_tune.graph.taps import CAM_TAP, FINAL_MAP_TAP
from synq_tune.quantization.layers import QUANTIZED_LAYERS
from synq_tune.quantization.student import activation_quantizers

_QUANTIZED = tuple(QUANTIZED_LAYERS.values())
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm)
_NO_LAYERS = (*_NORMS, nn.PReLU)
"""Modules whose weights scale values one by one."""
_BATCHNORMS = nn.modules.batchnorm._BatchNorm
_BATCH = 2
"""What shapes were traced for; windows of an image stand in the first axis beside it."""
_GATES = ("sigmoid", "hardsigmoid", "softmax")
_POOLS = ("AvgPool2d", "AdaptiveAvgPool2d", "adaptive_avg_pool2d", "avg_pool2d", "mean")


@dataclass(frozen=True)
class LayerRow:
    """One call of a layer that has weights."""

    name: str
    kind: str
    shape: tuple[int, ...]
    """Of the weight."""
    bits: int | None
    """Of the weight; None where it stays float."""
    reads: int | None
    """Bits of the values it reads; None where they are float."""
    macs: int
    """Multiplications per image."""
    why: str = ""
    grid: str | None = None
    """Name of the grid of the values it reads."""
    weight_grid: str | None = None
    """Name of the grid of what stands for a weight in a product of an attention."""


@dataclass(frozen=True)
class TensorRow:
    """The result of one operation that is not merely passed on to the next."""

    name: str
    kind: str
    shape: tuple[int, ...]
    """Of one image."""
    bits: int | None
    why: str = ""


@dataclass(frozen=True)
class Inspection:
    """Everything a student computes with, in call order."""

    layers: list[LayerRow]
    tensors: list[TensorRow]
    num_batchnorms: int
    cam_layer: str | None
    """What Grad-CAM looks at."""
    final_map: str | None
    """What CAM looks at."""

    @property
    def macs(self) -> int:
        """Multiplications per image."""
        return sum(row.macs for row in self.layers)

    def share(self, weights: int, activations: int) -> float:
        """Percent of the multiplications with a weight and an input of at most that many bits."""
        asked = sum(
            row.macs
            for row in self.layers
            if (row.bits or 32) <= weights and (row.reads or 32) <= activations
        )
        return 100.0 * asked / max(self.macs, 1)

    def weight_share(self, weights: int) -> float:
        """Percent of the multiplications with a weight of at most that many bits."""
        asked = sum(row.macs for row in self.layers if (row.bits or 32) <= weights)
        return 100.0 * asked / max(self.macs, 1)


def inspect_student(student: fx.GraphModule) -> Inspection:
    """Walk a quantized network.

    Args:
        student: from `quantize_student`; need not be calibrated.
    """
    nodes = list(student.graph.nodes)
    grids = activation_quantizers(student)
    return Inspection(
        layers=[row for node in nodes if (row := _layer(student, node, grids))],
        tensors=[row for node in nodes if (row := _tensor(student, node, grids))],
        num_batchnorms=len(batchnorm_layers(student)),
        cam_layer=_tapped(student, CAM_TAP, grids),
        final_map=_tapped(student, FINAL_MAP_TAP, grids),
    )


Grids = dict[str, nn.Module]


def _layer(graph: fx.GraphModule, node: fx.Node, grids: Grids) -> LayerRow | None:
    module = module_of(graph, node)
    weight = getattr(module, "weight", None)
    if weight is None or isinstance(module, _NO_LAYERS) or str(node.target) in grids:
        return _product(graph, node, grids) or _filter(graph, node, grids)
    is_quantized = isinstance(module, _QUANTIZED)
    kind = type(module).__name__.removeprefix("Quantized")
    return LayerRow(
        name=str(node.target),
        kind=kind,
        shape=tuple(weight.shape),
        bits=module.weight_quantizer.bits if is_quantized else None,
        reads=_bits_read(graph, node.args[0], grids),
        macs=_macs(node, weight.shape),
        why="" if is_quantized else f"only {_names(QUANTIZED_LAYERS)} are quantized",
        grid=_grid_read(graph, node.args[0], grids),
    )


def _filter(graph: fx.GraphModule, node: fx.Node, grids: Grids) -> LayerRow | None:
    """A convolution with a fixed filter, which belongs to no layer."""
    if node.target is not F.conv2d:
        return None
    weight = node.args[1] if len(node.args) > 1 else node.kwargs["weight"]
    shape = weight.meta.get("shape") or ()
    reads = _bits_read(graph, node.args[0], grids)
    why = "its filter is fixed, not learned"
    grid = _grid_read(graph, node.args[0], grids)
    return LayerRow(node.name, "conv2d", shape, None, reads, _macs(node, shape), why, grid)


def _product(graph: fx.GraphModule, node: fx.Node, grids: Grids) -> LayerRow | None:
    """A product of an attention: its left side is what it reads, its right side stands for a
    weight."""
    if not is_product(node):
        return None
    left, right = operands(node)
    reads, bits = (_bits_read(graph, side, grids) for side in (left, right))
    shape, result = left.meta["shape"], node.meta["shape"]
    macs = math.prod(result) // _BATCH * shape[-1]
    why = "" if bits else "no grid in front of it"
    shape = tuple(right.meta["shape"][1:])
    read = [_grid_read(graph, side, grids) for side in (left, right)]
    return LayerRow(node.name, "product", shape, bits, reads, macs, why, *read)


def _names(kinds: dict[type[nn.Module], type[nn.Module]]) -> str:
    return " and ".join(kind.__name__ for kind in kinds)


def _macs(node: fx.Node, weight: tuple[int, ...]) -> int:
    """Of one image: each output value takes one multiplication per weight of its channel."""
    is_per_channel = len(weight) > 1
    values = math.prod(node.meta["shape"]) // _BATCH
    return values * (math.prod(weight[1:]) if is_per_channel else 1)


def _bits_read(graph: fx.GraphModule, node: object, grids: Grids) -> int | None:
    """Bits of the values at a node; None where they are float."""
    grid = _grid_read(graph, node, grids)
    return None if grid is None else grids[grid].bits


def _grid_read(graph: fx.GraphModule, node: object, grids: Grids) -> str | None:
    """Name of the grid of a node's values, looking back through what only moves them."""
    while isinstance(node, fx.Node):
        if str(node.target) in grids:
            return str(node.target)
        if not is_passthrough(graph, node):
            return None
        node = node.args[0] if node.args else None
    return None


def _tensor(graph: fx.GraphModule, node: fx.Node, grids: Grids) -> TensorRow | None:
    if _has_own_grid(graph, node, grids):
        return _part(graph, node, grids)
    if not is_float_map(node) or is_passthrough(graph, node) or str(node.target) in grids:
        return None
    grid = _grid_behind(graph, node, grids)
    if grid is None and (is_fused(graph, node) or _feeds_batchnorm(graph, node)):
        return None  # one operation with the one behind it
    why = "" if grid is not None else _why_float(graph, node, grids)
    kind = _kind(graph, node)
    return TensorRow(node.name, kind, tuple(node.meta["shape"][1:]), grid, why)


def _has_own_grid(graph: fx.GraphModule, node: fx.Node, grids: Grids) -> bool:
    """Whether a parameter or a part of a tensor, which are no results of operations, has a grid."""
    if node.op != "get_attr" and not is_passthrough(graph, node):
        return False
    return str(node.target) not in grids and any(str(u.target) in grids for u in node.users)


def _part(graph: fx.GraphModule, node: fx.Node, grids: Grids) -> TensorRow:
    is_parameter = node.op == "get_attr"
    shape = tuple(node.meta["shape"])
    kind = "parameter" if is_parameter else _kind(graph, node)
    bits = next(grids[str(u.target)].bits for u in node.users if str(u.target) in grids)
    return TensorRow(node.name, kind, shape if is_parameter else shape[1:], bits)


def _kind(graph: fx.GraphModule, node: fx.Node) -> str:
    module = module_of(graph, node)
    if module is not None:
        return type(module).__name__.removeprefix("Quantized")
    if node.op == "placeholder":
        return "input"
    return node.target if isinstance(node.target, str) else node.target.__name__


def _feeds_batchnorm(graph: fx.GraphModule, node: fx.Node) -> bool:
    user = only_user(graph, node)
    return user is not None and isinstance(module_of(graph, user), _BATCHNORMS)


def _grid_behind(graph: fx.GraphModule, node: fx.Node, grids: Grids) -> int | None:
    pending = [node]
    while pending:
        for user in pending.pop().users:
            if str(user.target) in grids:
                return grids[str(user.target)].bits
            if is_identity(graph, user):
                pending.append(user)
    return None


def _why_float(graph: fx.GraphModule, node: fx.Node, grids: Grids) -> str:
    module, kind = module_of(graph, node), _kind(graph, node)
    if is_logits(graph, node):
        return "logits"
    if node.op == "placeholder":
        return "the network's input"
    if kind.lower().strip("_") in _GATES:
        return "a gate in [0, 1]"
    if may_be_gate(graph, node):
        return "a gate"
    if kind in _POOLS:
        return "pooled values"
    if is_sum(node):
        return "a sum"
    user = only_user(graph, node)
    if user is not None and is_known_activation(graph, user):
        return "only its activation function reads it"
    if any(
        is_product(n) and any(_bits_read(graph, a, grids) for a in operands(n))
        for n in graph.graph.nodes
    ):
        return "nothing multiplies it as it is"
    if isinstance(module, (*_QUANTIZED, *_NORMS)):
        return "no activation function behind it"
    return "not an activation function"


def _tapped(graph: fx.GraphModule, tap: str, grids: Grids) -> str | None:
    """Name of the node a tap stands behind, other taps and grids passed over."""
    node = next((n for n in graph.graph.nodes if n.target == tap), None)
    while node is not None and (
        isinstance(module_of(graph, node), nn.Identity) or str(node.target) in grids
    ):
        node = node.args[0]
    if node is None:
        return None
    return str(node.target) if node.op == "call_module" else node.name
