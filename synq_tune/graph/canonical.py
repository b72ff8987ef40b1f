"""One form for all the ways to write a network, so that placement finds what it looks for."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from synq_tune.errors import InputError
from synq_tune.graph.equivalents import name_equivalents
from synq_tune.graph.functional import make_functional
from synq_tune.graph.observed_run import observe
from synq_tune.graph.unread import drop_unread


def canonicalize(graph: fx.GraphModule, example: Tensor) -> fx.GraphModule:
    """Rewrite a traced graph in place: nothing in place, nothing unread, known activations by name.

    Names of nodes stay, and so does what the graph computes: within rounding where an activation
    that was written out becomes one call, else to the bit. `meta` of every node has "shape",
    "dtype" (of tensors) and "constant" (where no image changes the value).

    Args:
        graph: traced.
        example: images (N, C, H, W) whose values do not matter.

    Raises:
        InputError: an operation in place cannot be written as one that gives a new tensor.
    """
    images = _random_like(example)
    seen = observe(graph, images)
    if make_functional(graph, seen):
        drop_unread(graph)
        seen = _checked(graph, images, seen)
    drop_unread(graph)
    name_equivalents(graph, {node: s.value for node, s in seen.items()})
    drop_unread(graph)
    graph.recompile()
    return graph


def _random_like(example: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(example.shape, generator=generator).to(example)


def _checked(graph: fx.GraphModule, images: Tensor, before: dict) -> dict:
    """Run the functional graph: it must give what the one with operations in place gave."""
    seen = observe(graph, images)
    output = next(n for n in graph.graph.nodes if n.op == "output")
    old, new = (run[output].value for run in (before, seen))
    if isinstance(old, Tensor) and not torch.allclose(old, new, equal_nan=True):
        raise InputError(
            "`operations leave their inputs as they are` must hold, but the network gives other values "
            "when they do. Write its operations in place as y = f(x)."
        )
    return seen
