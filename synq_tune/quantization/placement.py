"""Which tensors of a network get a grid: one rule per quantizer family.

A rule names the nodes behind which an activation quantizer is inserted.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import fx

from synq_tune.graph.activations import is_known_activation
from synq_tune.graph.nodes import find_nodes
from synq_tune.graph.operations import (
    _logits,
    is_float_map,
    is_fused,
    is_passthrough,
)

Placement = Callable[[fx.GraphModule], list[fx.Node]]


def after_activations(graph: fx.GraphModule) -> list[fx.Node]:
    """The paper's: behind every activation function; all else stays float."""
    return find_nodes(graph, lambda node, module: is_known_activation(graph, node))


def every_tensor(graph: fx.GraphModule) -> list[fx.Node]:
    """What integer hardware needs: every tensor that an operation reads, except the logits.

    The input, each layer with the BatchNorm and ReLU that hardware fuses into it, sums (with their
    ReLU), pooling, products, concatenations. An activation other than ReLU and ReLU6 is an
    operation of its own, so that its input has a grid as well as its output.
    """
    logits = _logits(graph)
    return [
        node
        for node in graph.graph.nodes
        if is_float_map(node)
        and node is not logits
        and not is_passthrough(graph, node)
        and not is_fused(graph, node)
    ]
