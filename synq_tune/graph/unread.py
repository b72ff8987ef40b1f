"""What nobody reads: it gets no grid, and no runtime has to compute it."""

from __future__ import annotations

from torch import fx


def drop_unread(graph: fx.GraphModule) -> None:
    """Erase, in place, every node of a functional graph whose result nobody reads; checks are such
    nodes.

    Modules and parameters stay, so that checkpoints fit. The first input stays, read or not.
    """
    first = next(n for n in graph.graph.nodes if n.op == "placeholder")
    for node in reversed(list(graph.graph.nodes)):
        if not node.users and node.op != "output" and node is not first:
            graph.graph.erase_node(node)
