"""Which nodes of a graph are activation functions, and which of them we know how to quantize.

Known is every function of single values in torch.nn. Most are activations wherever they stand; the
functions of `gates.py` are where a layer or a sum reads them, and stay float where they only
multiply other values.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import fx, nn

from synq_tune.graph.gates import is_gate, is_self_gated, may_be_gate
from synq_tune.graph.nodes import module_of

KNOWN_MODULES = (
    nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.GELU, nn.LeakyReLU, nn.PReLU, nn.ELU,
    nn.CELU, nn.SELU, nn.Mish, nn.Threshold, nn.Hardshrink, nn.Softshrink, nn.Tanhshrink,
)  # fmt: skip
KNOWN_FUNCTIONS = (
    F.relu, F.relu_, torch.relu, torch.relu_, F.relu6, F.silu, F.hardswish, F.gelu, F.leaky_relu,
    F.leaky_relu_, F.prelu, torch.prelu, F.elu,
    F.elu_, F.celu, F.celu_, torch.celu, torch.celu_, F.selu, F.selu_, torch.selu, torch.selu_,
    F.mish, F.threshold, F.threshold_, torch.threshold, torch.threshold_, F.hardshrink,
    torch.hardshrink, F.softshrink, F.tanhshrink, "relu", "relu_", "prelu", "hardshrink",
)  # fmt: skip
KNOWN_NAMES = (
    "ReLU, ReLU6, LeakyReLU, PReLU, ELU, CELU, SELU, SiLU, Mish, GELU, Hardswish, Hardtanh, "
    "Hardsigmoid, Sigmoid, LogSigmoid, Tanh, Softplus, Softsign, Threshold, Hardshrink, Softshrink, "
    "Tanhshrink"
)
"""As messages list them."""

# Softmax multiplies a map by values in [0, 1]; like the logits it stays float.
FLOAT_MODULES = (
    nn.Softmax, nn.Softmax2d, nn.Softmin, nn.LogSoftmax, nn.MultiheadAttention,
)  # fmt: skip

# RReLU is another function at each training step, and GLU is two tensors and a gate.
_UNKNOWN_FUNCTIONS = {
    F.glu, F.rrelu, F.rrelu_, torch.rrelu, torch.rrelu_, torch.sin, torch.cos, torch.tan,
    torch.atan, torch.sinh, torch.cosh, torch.erf, torch.exp, torch.log, torch.log1p, torch.sign,
}  # fmt: skip
_UNKNOWN_METHODS = {
    "sin", "cos", "tan", "atan", "sinh", "cosh", "erf", "exp", "exp_", "log", "log1p", "sign",
}  # fmt: skip


def is_known_activation(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the node is an activation function whose output the paper's quantizer quantizes."""
    if may_be_gate(graph, node):
        return not is_gate(graph, node)
    module = module_of(graph, node)
    is_function = node.op in ("call_function", "call_method") and node.target in KNOWN_FUNCTIONS
    is_module = type(module) in KNOWN_MODULES
    return is_module or is_function or is_self_gated(graph, node)


def unknown_activation(graph: fx.GraphModule, node: fx.Node) -> str | None:
    """Name of an activation function nobody here knows, or None."""
    module = module_of(graph, node)
    if module is not None:
        is_activation = type(module).__module__ == "torch.nn.modules.activation"
        known = isinstance(module, KNOWN_MODULES + FLOAT_MODULES) or may_be_gate(graph, node)
        return f"{type(module).__name__} at {node.target}" if is_activation and not known else None
    if node.op == "call_function" and node.target in _UNKNOWN_FUNCTIONS:
        return f"{node.target.__name__} at {node.name}"
    if node.op == "call_method" and node.target in _UNKNOWN_METHODS:
        return f"{node.target} at {node.name}"
    return None
