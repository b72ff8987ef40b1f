"""Functions of single values: what a stretch of a graph does to each element of one tensor."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from synq_tune.graph.nodes import operation

_NAMES = (
    "add", "sub", "rsub", "subtract", "mul", "multiply", "truediv", "div", "divide", "true_divide",
    "pow", "neg", "negative", "pos", "positive", "abs", "absolute", "square", "sqrt", "rsqrt",
    "reciprocal", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sigmoid", "expit",
    "tanh", "erf", "erfc", "sin", "cos", "tan", "atan", "arctan", "asinh", "arcsinh", "sinh",
    "cosh", "clamp", "clip", "clamp_min", "clamp_max", "relu", "relu6", "leaky_relu", "elu", "celu",
    "selu", "silu", "mish", "gelu", "softplus", "softsign", "logsigmoid", "hardtanh",
    "hardsigmoid", "hardswish", "hardshrink", "softshrink", "tanhshrink", "threshold", "gt", "ge",
    "lt", "le", "eq", "ne", "greater", "greater_equal", "less", "less_equal", "not_equal",
    "logical_and", "logical_or", "logical_not", "and_", "or_", "invert", "inv", "bitwise_and",
    "bitwise_or", "bitwise_not", "where", "masked_fill", "heaviside", "sign", "sgn", "floor", "ceil",
    "round", "trunc", "nan_to_num", "logaddexp", "xlogy", "lerp", "addcmul", "float", "double",
    "half", "bool", "to", "type", "type_as", "clone", "contiguous", "detach", "zeros_like",
    "ones_like", "full_like", "max", "min", "maximum", "minimum", "expand_as",
)  # fmt: skip
_OF_TWO = ("max", "min")
"""Pointwise of two tensors, a reduction of one."""
_SHAPE_ONLY = (
    "zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full",
    "new_tensor", "size", "numel", "dim",
)  # fmt: skip
_SHAPED_AS = ("expand_as", "view_as", "reshape_as", "type_as")
"""Methods whose second tensor only lends its shape or type."""
_CASTS = ("float", "double", "half", "to", "type", "type_as")
_NOTHING = ("clone", "contiguous", "detach", "expand_as")
_MODULES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)
_NO_FUNCTION_OF_VALUES = (
    nn.Softmax, nn.Softmax2d, nn.Softmin, nn.LogSoftmax, nn.MultiheadAttention, nn.GLU, nn.PReLU,
    nn.RReLU,
)  # fmt: skip
_FUNCTIONS = {
    function: name
    for room in (operator, torch, F, torch.special)
    for name in _NAMES
    if (function := getattr(room, name, None)) is not None
}


def name_of(graph: fx.GraphModule, node: fx.Node) -> str | None:
    """Name of a function of single values that a node calls, or None."""
    if node.op == "call_module":
        return _name_of_module(graph.get_submodule(str(node.target)))
    called = operation(node)
    name = called if isinstance(called, str) else _FUNCTIONS.get(called)
    if name not in _NAMES:
        return None
    second = node.args[1] if len(node.args) == 2 else None
    return None if name in _OF_TWO and not isinstance(second, fx.Node) else name


def hands_on(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a function of single values gives what it reads, but for its type."""
    return name_of(graph, node) in (*_NOTHING, *_CASTS)


def _name_of_module(module: nn.Module) -> str | None:
    kind = type(module)
    if isinstance(module, _MODULES):
        return "contiguous"
    is_activation = kind.__module__ == "torch.nn.modules.activation"
    return kind.__name__ if is_activation and kind not in _NO_FUNCTION_OF_VALUES else None


def value_inputs(node: fx.Node) -> list[fx.Node]:
    """The inputs whose values, and not whose shape alone, a node reads."""
    called = operation(node)
    name = called if isinstance(called, str) else getattr(called, "__name__", "")
    is_shape = called is getattr and len(node.args) > 1 and node.args[1] in ("shape", "dtype")
    if name in _SHAPE_ONLY or is_shape:
        return []
    return node.all_input_nodes[:1] if name in _SHAPED_AS else node.all_input_nodes


def note_constants(graph: fx.GraphModule, values: dict[fx.Node, Any]) -> None:
    """Give `meta["constant"]` to every node that no image changes.

    It is the value where all elements are one number; "learned" where a parameter is in it, since
    training changes that; and None for other tensors and for what is no tensor.
    """
    for node in graph.graph.nodes:
        node.meta.pop("constant", None)
        inputs = value_inputs(node)
        if node.op == "placeholder" or any("constant" not in n.meta for n in inputs):
            continue
        is_learned = any(n.meta["constant"] == "learned" for n in inputs)
        node.meta["constant"] = "learned" if is_learned else _constant(graph, node, values[node])


def _constant(graph: fx.GraphModule, node: fx.Node, value: Any) -> Any:
    if node.op == "get_attr" and isinstance(_attribute(graph, node), nn.Parameter):
        return "learned"
    if not isinstance(value, Tensor) or value.numel() == 0:
        return None
    first = value.flatten()[0]
    return first.item() if bool((value == first).all()) else None


def _attribute(graph: fx.GraphModule, node: fx.Node) -> Any:
    parent, _, name = str(node.target).rpartition(".")
    return getattr(graph.get_submodule(parent), name)


class Stretches:
    """For every node of a graph the tensor of whose single values it is a function, if there is
    one."""

    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        self.origin: dict[fx.Node, fx.Node] = {}
        for node in graph.graph.nodes:
            self.origin[node] = self._origin(node)

    def inputs(self, node: fx.Node) -> list[fx.Node]:
        """What a node reads that images change."""
        return [n for n in value_inputs(node) if "constant" not in n.meta]

    def _origin(self, node: fx.Node) -> fx.Node:
        origins = {self.origin[n] for n in self.inputs(node)}
        is_pointwise = name_of(self.graph, node) is not None
        return origins.pop() if is_pointwise and len(origins) == 1 else node

    def starts(self, node: fx.Node) -> list[fx.Node]:
        """Nodes of whose values `node` is a function, the farthest first."""
        inside = self.between(self.origin[node], node)
        return [v for v in inside if v is not node and self._is_bottleneck(v, node)]

    def between(self, start: fx.Node, node: fx.Node) -> list[fx.Node]:
        """`start`, `node` and all on the way, in call order."""
        found, pending = {node}, [node]
        while pending:
            current = pending.pop()
            found.add(current)
            if current not in (start, self.origin[node]):
                pending += [n for n in self.inputs(current) if n not in found]
        return sorted(found)

    def _is_bottleneck(self, start: fx.Node, node: fx.Node) -> bool:
        origin = self.origin[node]
        return start is origin or origin not in self.between(start, node)

    def is_learned(self, start: fx.Node, node: fx.Node) -> bool:
        """Whether parameters, or constants that differ by place, take part in the function."""
        return any(
            not isinstance(n.meta["constant"], (int, float))
            for inner in self.between(start, node)
            if inner is not start
            for n in value_inputs(inner)
            if "constant" in n.meta
        )

    def evaluate(self, node: fx.Node, known: dict[fx.Node, Tensor]) -> Tensor:
        """The function's values in float64, for values (n,) of the tensors it starts from."""
        values: dict[fx.Node, Any] = dict(known)
        return _evaluate(self.graph, node, values).to(torch.float64)


def _evaluate(graph: fx.GraphModule, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    if node not in values:
        values[node] = _compute(graph, node, values)
    return values[node]


def _compute(graph: fx.GraphModule, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    name = name_of(graph, node) if node.op != "get_attr" else None
    constant = node.meta.get("constant")
    if isinstance(constant, (int, float)):
        return torch.tensor(constant, dtype=torch.float64 if type(constant) is float else None)
    if "constant" in node.meta:
        # A number in the place of the parameter, or of one of many: not 0 or 1, which hide a
        # product.
        return torch.tensor(0.7, dtype=torch.float64)
    if name in _NOTHING or name in _CASTS and node.meta["dtype"].is_floating_point:
        first = _evaluate(graph, node.args[0], values)
        return first.to(torch.float64) if name in _CASTS else first
    args, kwargs = (
        fx.node.map_arg(a, lambda n: _evaluate(graph, n, values)) for a in (node.args, node.kwargs)
    )
    if node.op == "call_module":
        return graph.get_submodule(str(node.target)).forward(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    return node.target(*args, **{k: v for k, v in kwargs.items() if k not in ("dtype", "inplace")})
