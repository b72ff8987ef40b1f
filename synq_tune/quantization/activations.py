"""Which nodes of a graph are activation functions, and which of them we know how to quantize."""

from __future__ import annotations

import operator

import torch
import torch.nn.functional as F
from torch import fx, nn

from synq_tune.models.graph import module_of

KNOWN_MODULES = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.GELU)
KNOWN_FUNCTIONS = (
    F.relu, torch.relu, torch.relu_, F.relu6, F.silu, F.hardswish, F.gelu, "relu", "relu_",
)  # fmt: skip

# Gates multiply a map by values in [0, 1]; like the logits they stay float.
FLOAT_MODULES = (nn.Sigmoid, nn.Hardsigmoid, nn.Softmax, nn.LogSoftmax, nn.MultiheadAttention)

_UNKNOWN_FUNCTIONS = {
    F.elu, F.selu, F.celu, F.leaky_relu, F.prelu, F.mish, F.softplus, F.tanh, torch.tanh,
    F.hardtanh, F.rrelu, F.glu, F.logsigmoid, F.softsign, F.tanhshrink, F.hardshrink, F.softshrink,
    F.threshold, torch.sin, torch.cos, torch.tan, torch.atan, torch.sinh, torch.cosh, torch.erf,
    torch.exp, torch.log, torch.log1p, torch.sign, torch.prelu,
}  # fmt: skip
_UNKNOWN_METHODS = {
    "tanh", "tanh_", "sin", "cos", "tan", "atan", "sinh", "cosh", "erf", "exp", "exp_", "log",
    "log1p", "sign", "prelu",
}  # fmt: skip

_PRODUCTS = (operator.mul, operator.imul, torch.mul, "mul", "mul_")
_SIGMOIDS = (F.sigmoid, torch.sigmoid, "sigmoid", "sigmoid_")


def is_known_activation(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the node is an activation function whose output the paper's quantizer quantizes."""
    module = module_of(graph, node)
    is_function = node.op in ("call_function", "call_method") and node.target in KNOWN_FUNCTIONS
    return type(module) in KNOWN_MODULES or is_function or _is_written_out_silu(graph, node)


def _is_written_out_silu(graph: fx.GraphModule, node: fx.Node) -> bool:
    """x · sigmoid(x), as older networks write SiLU; a gate has another factor."""
    if node.target not in _PRODUCTS or len(node.args) != 2:
        return False
    return any(
        isinstance(gate, fx.Node) and _is_sigmoid(graph, gate) and gate.args[0] is x
        for x, gate in (node.args, node.args[::-1])
    )


def _is_sigmoid(graph: fx.GraphModule, node: fx.Node) -> bool:
    is_function = node.op in ("call_function", "call_method") and node.target in _SIGMOIDS
    return is_function or isinstance(module_of(graph, node), nn.Sigmoid)


def unknown_activation(graph: fx.GraphModule, node: fx.Node) -> str | None:
    """Name of an activation function nobody here knows, or None."""
    module = module_of(graph, node)
    if module is not None:
        is_activation = type(module).__module__ == "torch.nn.modules.activation"
        known = isinstance(module, KNOWN_MODULES + FLOAT_MODULES)
        return f"{type(module).__name__} at {node.target}" if is_activation and not known else None
    if node.op == "call_function" and node.target in _UNKNOWN_FUNCTIONS:
        return f"{node.target.__name__} at {node.name}"
    if node.op == "call_method" and node.target in _UNKNOWN_METHODS:
        return f"{node.target} at {node.name}"
    return None
