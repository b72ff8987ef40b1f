"""Activation functions without a name and without a grid: they would stay float without a word."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from synq_tune.graph.activation_fit import PROBE, has_a_name
from synq_tune.graph.activations import is_known_activation
from synq_tune.graph.attention import is_product
from synq_tune.graph.branches import is_identity
from synq_tune.graph.nodes import is_float, module_of, operation
from synq_tune.graph.operations import is_passthrough
from synq_tune.graph.pointwise import Stretches, name_of

_SOFTMAX = ("softmax", "log_softmax", "softmin", "logsumexp")
_REDUCTIONS = (
    "mean",
    "sum",
    "var",
    "std",
    "norm",
    "var_mean",
    "amax",
    "amin",
    "prod",
    "max",
    "min",
)
_POOLS = (nn.AvgPool2d, nn.AdaptiveAvgPool2d)


def unplaced_functions(graph: fx.GraphModule, placed: list[fx.Node]) -> list[str]:
    """What bends the values of a map, is no known activation, and has no grid: "where at where_1".

    Left out is what torch.nn has a name for, which `activations.py` judges; what weighs other
    values (gates, softmax); what only statistics are taken of; and what is computed from known
    activations alone, whose values lie on a grid.

    Args:
        graph: whose grids are not inserted yet.
        placed: nodes that will have one.
    """
    stretches, chosen = Stretches(graph), set(placed)
    return [
        f"{name_of(graph, node)} at {node.name}"
        for node in graph.graph.nodes
        if stretches.origin[node] is not node
        and is_float(node)
        and node not in chosen
        and not is_identity(graph, node)
        and not has_a_name(name_of(graph, node) or "")
        and not is_known_activation(graph, node)
        and _bends(graph, stretches, node)
        and _is_read_as_map(graph, stretches, node, node)
    ]


def _bends(graph: fx.GraphModule, stretches: Stretches, node: fx.Node) -> bool:
    """Whether the node is more than a sum of its origin and of known activations, each times a
    number."""
    leaves = _leaves(graph, stretches, node)
    if stretches.origin[node] not in leaves:
        return False
    generator = torch.Generator().manual_seed(0)
    a, b = (
        {n: 5 * torch.randn(1000, generator=generator, dtype=torch.float64) for n in leaves}
        for _ in range(2)
    )
    both, none = {n: a[n] + b[n] for n in leaves}, {n: torch.zeros_like(a[n]) for n in leaves}
    parts = [stretches.evaluate(node, values) for values in (both, none, a, b)]
    rest = parts[0] + parts[1] - parts[2] - parts[3]
    return not bool((rest.abs() <= 1e-9 * (1 + parts[0].abs())).all())


def _leaves(graph: fx.GraphModule, stretches: Stretches, node: fx.Node) -> set[fx.Node]:
    found, pending = set(), stretches.inputs(node)
    while pending:
        current = pending.pop()
        if current is stretches.origin[node] or is_known_activation(graph, current):
            found.add(current)
        else:
            pending = pending + stretches.inputs(current)
    return found


def _is_read_as_map(
    graph: fx.GraphModule, stretches: Stretches, node: fx.Node, function: fx.Node
) -> bool:
    """Whether a layer, a sum, a pooling or the like reads the values."""
    for reader in node.users:
        is_passed_on = is_identity(graph, reader) or is_passthrough(graph, reader)
        if is_passed_on or operation(reader) is F.interpolate:
            if _is_read_as_map(graph, stretches, reader, function):
                return True
        elif stretches.origin[reader] is not stretches.origin[node] and not _weighs(
            graph, stretches, reader, function
        ):
            return True
    return False


def _weighs(
    graph: fx.GraphModule, stretches: Stretches, reader: fx.Node, function: fx.Node
) -> bool:
    """Whether the reader takes the values for weights or statistics of others, or only their
    shape."""
    called = operation(reader)
    name = called if isinstance(called, str) else getattr(called, "__name__", "")
    if reader.op == "output" or not stretches.inputs(reader) or is_product(reader):
        return True
    if name in _SOFTMAX or isinstance(module_of(graph, reader), (nn.Softmax, nn.LogSoftmax)):
        return True
    if name in _REDUCTIONS or isinstance(module_of(graph, reader), _POOLS):
        return name_of(graph, function) == "exp" or _is_even(_alone(stretches, function))
    return name_of(graph, reader) in _WEIGHTS


_WEIGHTS = (
    "mul", "multiply", "truediv", "div", "divide", "true_divide", "gt", "ge", "lt", "le", "eq", "ne",
    "where", "masked_fill", "lerp", "addcmul", "pow",
)  # fmt: skip


def _alone(stretches: Stretches, node: fx.Node) -> Tensor:
    return stretches.evaluate(node, {stretches.origin[node]: PROBE}).expand_as(PROBE)


def _is_even(values: Tensor) -> bool:
    """Whether a function does not care for signs, as squares and magnitudes do not."""
    return torch.equal(values, values.flip(0))
