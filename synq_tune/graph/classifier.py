"""A network's last layer, and the features that it reads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import Tensor, fx, nn

from synq_tune.graph.nodes import find_nodes, module_of


def last_layer(graph: fx.GraphModule) -> nn.Linear | nn.Conv2d | None:
    """The last linear layer or convolution, which gives the logits of most networks; None without
    any."""
    nodes = find_nodes(graph, lambda n, m: isinstance(m, (nn.Linear, nn.Conv2d)))
    return module_of(graph, nodes[-1]) if nodes else None


@contextlib.contextmanager
def features_read(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what a layer reads: a list with the features (N, D) float32 of the last forward."""
    features: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor]) -> None:
        features[:] = [inputs[0].float().flatten(1)]

    handle = layer.register_forward_pre_hook(keep)
    try:
        yield features
    finally:
        handle.remove()
