"""Trace a network into a graph, where every call of an operation is a node of its own.

A torchvision block calls one ReLU module twice and a CIFAR ResNet calls `F.relu`; in the graph both
are nodes, so each call site gets its own activation range (design §4).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx, nn

from synq_tune.errors import InputError
from synq_tune.models.arguments import put_in_place
from synq_tune.models.canonical import canonicalize
from synq_tune.models.modularize import modularize
from synq_tune.models.tracer import ShapeTracer


def trace(model: nn.Module, shape: tuple[int, int, int]) -> fx.GraphModule:
    """Trace `model` for inputs of `shape` (C, H, W) and any batch size; it shares its parameters.

    Every node's `meta["shape"]` holds the shape of its output for a batch of two (None for a
    node whose output is no tensor). Layers that a library subclassed become plain ones in place.

    Raises:
        InputError: the network has data-dependent control flow, or does not take such inputs.
    """
    parameter = next(model.parameters(), None)
    device = parameter.device if parameter is not None else None
    tracer = ShapeTracer(torch.zeros(2, *shape, device=device))
    try:
        graph = tracer.trace(model.eval())
    except InputError:
        raise
    except Exception as error:  # whatever the network's own code raises
        where = f" at {tracer.place}" if tracer.place else ""
        raise InputError(
            f"`the network can be traced for inputs {list(shape)}` must hold, but got "
            f"{type(model).__name__}{where}: {first_line(error)}."
        ) from error
    for node in graph.nodes:
        value = tracer.values.get(node)
        node.meta["shape"] = tuple(value.shape) if isinstance(value, Tensor) else None
    put_in_place(model, graph)
    modularize(model, graph)
    traced = canonicalize(fx.GraphModule(model, graph), tracer.example)
    traced.meta["installed"] = tracer.installed
    return traced.eval()


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its kind where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def module_of(graph: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The submodule a node calls, or None."""
    return graph.get_submodule(node.target) if node.op == "call_module" else None


def insert_after(graph: fx.GraphModule, node: fx.Node, name: str, module: nn.Module) -> fx.Node:
    """Insert a call of `module`, added as submodule `name`, behind `node` for all its users.

    The caller recompiles `graph` after its last change: once per insertion costs more than the rest.
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
