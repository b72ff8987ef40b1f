"""Trace a network into a graph, where every call of an operation is a node of its own.

A torchvision block calls one ReLU module twice and a CIFAR ResNet calls `F.relu`; in the graph both
are nodes, so each call site gets its own activation range (design §4).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx, nn

from synq_tune.errors import InputError


def trace(model: nn.Module, shape: tuple[int, int, int]) -> fx.GraphModule:
    """Trace `model` for inputs of `shape` (C, H, W); the result shares its parameters.

    Every node's `meta["shape"]` holds the shape of its output for a batch of two (None for a
    node whose output is no tensor).

    Raises:
        InputError: the network has data-dependent control flow.
    """
    try:
        graph = fx.symbolic_trace(model)
    except (fx.proxy.TraceError, TypeError) as error:
        raise InputError(
            f"`the network can be traced` must hold, but got {type(model).__name__}: "
            f"{str(error).splitlines()[0]}."
        ) from error
    graph.eval()
    _Shapes(graph).run(torch.zeros(2, *shape))
    return graph


class _Shapes(fx.Interpreter):
    """Run the graph once and note each node's output shape."""

    @torch.no_grad()
    def run(self, *args: Tensor) -> Tensor:
        return super().run(*args)

    def run_node(self, node: fx.Node) -> object:
        result = super().run_node(node)
        node.meta["shape"] = tuple(result.shape) if isinstance(result, Tensor) else None
        return result


def module_of(graph: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The submodule a node calls, or None."""
    return graph.get_submodule(node.target) if node.op == "call_module" else None


def insert_after(graph: fx.GraphModule, node: fx.Node, name: str, module: nn.Module) -> fx.Node:
    """Insert a call of `module`, added as submodule `name`, behind `node` for all its users."""
    graph.add_submodule(name, module)
    with graph.graph.inserting_after(node):
        inserted = graph.graph.call_module(name, (node,))
    node.replace_all_uses_with(inserted, delete_user_cb=lambda user: user is not inserted)
    inserted.meta["shape"] = node.meta.get("shape")
    graph.recompile()
    return inserted


def find_nodes(
    graph: fx.GraphModule, predicate: Callable[[fx.Node, nn.Module | None], bool]
) -> list[fx.Node]:
    """Nodes in call order for which `predicate(node, module)` holds."""
    return [node for node in graph.graph.nodes if predicate(node, module_of(graph, node))]
