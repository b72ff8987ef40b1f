"""Gates: values that only ever multiply other values, which stay float as the logits do.

Sigmoid, tanh and the like are activation functions where a layer or a sum reads them, and gates
where they weigh a map, as in squeeze-and-excite.
"""

from __future__ import annotations

import operator

import torch
import torch.nn.functional as F
from torch import fx, nn

from synq_tune.graph.attention import PRODUCTS
from synq_tune.graph.nodes import module_of, operation

GATE_MODULES = (
    nn.Sigmoid, nn.Hardsigmoid, nn.Tanh, nn.Softsign, nn.Softplus, nn.LogSigmoid, nn.Hardtanh,
)  # fmt: skip
"""Activation modules that may be gates; ReLU6, a kind of Hardtanh, never is one."""
GATE_FUNCTIONS = (
    F.sigmoid, torch.sigmoid, torch.sigmoid_, torch.special.expit, F.hardsigmoid, F.tanh,
    torch.tanh, torch.tanh_, F.softsign, F.softplus, F.logsigmoid, F.hardtanh, F.hardtanh_,
    "sigmoid", "sigmoid_", "tanh", "tanh_",
)  # fmt: skip

_TIMES = (
    operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_", "multiply", "multiply_",
)  # fmt: skip
_MULTIPLIES = (
    *_TIMES, operator.truediv, operator.itruediv, torch.div, torch.true_divide, "div", "div_",
    torch.lerp, "lerp", "lerp_", torch.addcmul, "addcmul", "addcmul_", *PRODUCTS,
)  # fmt: skip
_SHAPED_AS = ("expand_as", "view_as", "type_as", "reshape_as")
"""Methods whose second tensor only lends its shape or type."""
_WITH_NUMBERS = (
    operator.add, operator.sub, operator.mul, operator.truediv, operator.neg, torch.add, torch.sub,
    torch.mul, torch.div, torch.neg, "add", "sub", "mul", "div", "neg",
)  # fmt: skip


def may_be_gate(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the node is a function that is a gate in some networks and an activation in
    others."""
    module = module_of(graph, node)
    if module is not None:
        return isinstance(module, GATE_MODULES) and not isinstance(module, nn.ReLU6)
    return operation(node) in GATE_FUNCTIONS


def is_gate(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether all that is done with a node's values is to multiply other tensors by them.

    Looks through operations without weights that read nothing else: reshaping, 1 - gate, softmax.
    What gives the logits, or is computed from parameters alone, counts as a gate, too: neither gets
    a grid as an activation.
    """
    return _only_multiplies(graph, node) or not _reads_image(node)


def is_self_gated(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the node is x · g(x) of a gate function g, as SiLU and Mish are written out."""
    operands = [a for a in (*node.args, *node.kwargs.values()) if isinstance(a, fx.Node)]
    if operation(node) not in _TIMES or len(operands) != 2:
        return False
    return any(_is_gate_of(graph, gate, x) for x, gate in (operands, operands[::-1]))


def _only_multiplies(graph: fx.GraphModule, node: fx.Node) -> bool:
    readers = [r for r in node.users if operation(r) not in ("size", "dim")]
    return bool(readers) and all(_multiplies(graph, reader, node) for reader in readers)


def _multiplies(graph: fx.GraphModule, reader: fx.Node, node: fx.Node) -> bool:
    if reader.op == "output":
        return True
    others = [n for n in reader.all_input_nodes if n is not node and _reads_image(n)]
    if others and operation(reader) not in _SHAPED_AS:
        return operation(reader) in _MULTIPLIES
    module = module_of(graph, reader)
    has_weights = module is not None and next(module.parameters(), None) is not None
    return not has_weights and _only_multiplies(graph, reader)


def _reads_image(node: fx.Node) -> bool:
    """Whether a node's values depend on the images, and not on parameters or sizes alone."""
    pending, seen = [node], set()
    while pending:
        source = pending.pop()
        if source.op == "placeholder":
            return True
        is_size = source.op == "call_method" and source.target == "size"
        if source not in seen and not is_size:
            pending += source.all_input_nodes
        seen.add(source)
    return False


def _is_gate_of(graph: fx.GraphModule, gate: fx.Node, x: fx.Node) -> bool:
    """Whether `gate` is computed from the values of `x` one by one, by a gate function among
    others."""
    found = False
    while gate is not x:
        is_function = may_be_gate(graph, gate)
        with_number = operation(gate) in _WITH_NUMBERS and len(gate.all_input_nodes) == 1
        if not (is_function or with_number) or not gate.all_input_nodes:
            return False
        found = found or is_function
        gate = gate.all_input_nodes[0]
    return found
