"""Which nodes of a graph are activation functions, and which of them we know how to quantize."""

from __future__ import annotations

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
    F.hardtanh, F.rrelu, F.glu, "tanh",
}  # fmt: skip


def is_known_activation(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the node is an activation function whose output the paper's quantizer quantizes."""
    module = module_of(graph, node)
    return type(module) in KNOWN_MODULES or (
        node.op in ("call_function", "call_method") and node.target in KNOWN_FUNCTIONS
    )


def unknown_activation(graph: fx.GraphModule, node: fx.Node) -> str | None:
    """Name of an activation function nobody here knows, or None."""
    module = module_of(graph, node)
    if module is not None:
        is_activation = type(module).__module__ == "torch.nn.modules.activation"
        known = isinstance(module, KNOWN_MODULES + FLOAT_MODULES)
        return f"{type(module).__name__} at {node.target}" if is_activation and not known else None
    if node.op == "call_function" and node.target in _UNKNOWN_FUNCTIONS:
        return f"{node.target.__name__} at {node.name}"
    return None
