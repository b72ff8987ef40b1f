"""Nodes of a graph: what each one calls, what is known of its value, how to find them and add
some."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn


def operation(node: fx.Node) -> Any:
    """The function, or the method's name, that a node calls; None for any other kind of node.

    A module may be called "add" or "relu" and be anything: only calls of methods give a name here.
    """
    return node.target if node.op in ("call_function", "call_method") else None


def is_float(node: fx.Node) -> bool:
    """Whether the node gives one tensor of real numbers: no mask, no index, no size."""
    dtype = node.meta.get("dtype", torch.float32)
    return node.meta.get("shape") is not None and dtype.is_floating_point


def is_fixed(node: fx.Node) -> bool:
    """Whether neither images nor training change the node's values."""
    return node.meta.get("constant", "learned") != "learned"


def module_of(graph: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The submodule a node calls, or None."""
    return graph.get_submodule(node.target) if node.op == "call_module" else None


def insert_after(graph: fx.GraphModule, node: fx.Node, name: str, module: nn.Module) -> fx.Node:
    """Insert a call of `module`, added as submodule `name`, behind `node` for all its users.

    The caller recompiles `graph` after its last change: once per insertion costs more than the
    rest.
    """
    graph.add_submodule(name, module)
    with graph.graph.inserting_after(node):
        inserted = graph.graph.call_module(name, (node,))
    node.replace_all_uses_with(inserted, delete_user_cb=lambda user: user is not inserted)
    inserted.meta.update({k: node.meta[k] for k in ("shape", "dtype") if k in node.meta})
    return inserted


def find_nodes(
    graph: fx.GraphModule, predicate: Callable[[fx.Node, nn.Module | None], bool]
) -> list[fx.Node]:
    """Nodes in call order for which `predicate(node, module)` holds."""
    return [node for node in graph.graph.nodes if predicate(node, module_of(graph, node))]
