"""Trace a network into a graph, where every call of an operation is a node of its own.

A torchvision block calls one ReLU module twice and a CIFAR ResNet calls `F.relu`; in the graph both
are nodes, so each call site gets its own activation range (design §4).
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from synq_tune.errors import InputError
from synq_tune.graph.arguments import put_in_place
from synq_tune.graph.canonical import canonicalize
from synq_tune.graph.modularize import modularize
from synq_tune.graph.tracer import ShapeTracer


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
