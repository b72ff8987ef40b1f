"""Activation functions that a network writes out, as one call of the module they are equal to.

`clamp(x, 0, 6)`, `x * relu6(x + 3) / 6` and `where(x > 0, x, 0.1 * x)` are ReLU6, Hardswish and
LeakyReLU whatever they are called. They are found by what they compute: a stretch of operations on
the single values of one tensor is run on a dense row of numbers and compared with the functions of
torch.nn.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import fx, nn

from synq_tune.graph.activation_fit import PROBE, fit, is_called
from synq_tune.graph.nodes import is_float, operation
from synq_tune.graph.pointwise import Stretches, hands_on, name_of, note_constants

PREFIX = "activation_"
"""Of the modules' names, before the name of the node."""

_PLAIN = (
    "relu", "relu6", "silu", "hardswish", "gelu", "ReLU", "ReLU6", "SiLU", "Hardswish", "GELU",
)  # fmt: skip
"""Activations of one call and one form: they are what they are called."""
_BOUNDED = (nn.Hardtanh, nn.Tanh, nn.Softsign, nn.Softplus, nn.LogSigmoid)
"""Activations that are gates, and then no business of ours, where they only multiply."""
_PRODUCTS = ("mul", "multiply", "truediv", "div", "divide", "true_divide")
_GUARDS = ("sqrt", "rsqrt", "log", "log2", "log10", "log1p", "pow", "reciprocal")
"""What a clamp keeps from reading numbers that it has no result for."""
_WITH_NUMBERS = ("add", "sub", *_PRODUCTS)


def name_equivalents(graph: fx.GraphModule, values: dict[fx.Node, Any]) -> None:
    """Replace, in place, what equals an activation by a call of it; the node's name stays.

    The largest stretch that fits wins. What others read of its inside stays for them. Constants of
    the network count as what they are now, parameters as unknown: no activation may freeze one.

    Args:
        graph: functional, without unread nodes.
        values: what each node gave in one run.
    """
    note_constants(graph, values)
    stretches = Stretches(graph)
    for node in reversed(list(graph.graph.nodes)):
        if node.op == "output" or stretches.origin[node] is node:
            continue
        if node.users and _may_be_written_out(graph, stretches, node):
            found = _equivalent(graph, stretches, node)
            if found is not None:
                _replace(graph, node, *found)


def _may_be_written_out(graph: fx.GraphModule, stretches: Stretches, node: fx.Node) -> bool:
    if not is_float(node) or name_of(graph, node) in _PLAIN or is_silu(graph, node):
        return False
    if hands_on(graph, node):
        return False
    return not _is_guard(graph, stretches, node)


def is_silu(graph: fx.GraphModule, node: fx.Node) -> bool:
    """x · sigmoid(x), which keeps its two operations: they round otherwise than one."""
    if name_of(graph, node) not in ("mul", "multiply") or len(node.args) != 2:
        return False
    return any(
        isinstance(gate, fx.Node)
        and name_of(graph, gate) in ("sigmoid", "expit", "Sigmoid")
        and gate.args[0] is x
        for x, gate in (node.args, node.args[::-1])
    )


def _is_guard(graph: fx.GraphModule, stretches: Stretches, node: fx.Node) -> bool:
    """Whether all that happens to a node's values is a function that has no result for negative
    ones."""
    readers = [(name_of(graph, reader), reader) for reader in node.users]
    return bool(readers) and all(
        name in _GUARDS
        or name in _WITH_NUMBERS
        and len(stretches.inputs(r)) == 1
        and _is_guard(graph, stretches, r)
        for name, r in readers
    )


def _equivalent(
    graph: fx.GraphModule, stretches: Stretches, node: fx.Node
) -> tuple[fx.Node, nn.Module] | None:
    for start in stretches.starts(node):
        if not is_float(start) or start.meta["shape"] != node.meta["shape"]:
            continue
        if stretches.is_learned(start, node):
            continue
        module = fit(stretches.evaluate(node, {start: PROBE}))
        if module is None:
            continue
        if is_called(module, name_of(graph, node) or ""):
            return None
        if isinstance(module, _BOUNDED) and _only_multiplies(graph, stretches, node):
            return None
        return start, module
    return None


def _only_multiplies(graph: fx.GraphModule, stretches: Stretches, node: fx.Node) -> bool:
    return all(
        _only_multiplies(graph, stretches, reader)
        if operation(reader) is F.interpolate
        else name_of(graph, reader) in _PRODUCTS and len(stretches.inputs(reader)) > 1
        for reader in node.users
    )


def _replace(graph: fx.GraphModule, node: fx.Node, start: fx.Node, module: nn.Module) -> None:
    name = PREFIX + node.name
    graph.add_submodule(name, module.eval())
    node.op, node.target, node.args, node.kwargs = "call_module", name, (start,), {}
