"""Skip connections with a width of their own: what sums read, beside what layers read of the same
tensor.

The paper's placement puts one grid on both, so that the sum of a residual block is taken of values
of 3 bits; LSQ (Esser et al., 2020) quantizes what layers read and leaves the sums alone. With
`bits.skip` a tensor that both read is stored at that width and rounded once more in front of the
layers, as integer hardware would.
"""

from __future__ import annotations

from torch import fx

from synq_tune.errors import InputError
from synq_tune.graph.branches import Branch, branch_name, give_branch, readers_of
from synq_tune.graph.nodes import find_nodes, module_of
from synq_tune.graph.operations import is_passthrough, is_sum


def split_residuals(
    graph: fx.GraphModule, nodes: list[fx.Node]
) -> tuple[list[fx.Node], list[fx.Node]]:
    """Branch off the layers that read the same tensor as a sum, in place.

    Args:
        graph: network whose grids are not inserted yet.
        nodes: where its family puts grids.

    Returns:
        Where grids of `bits.activations` go, and where those of `bits.skip` go, in call order.

    Raises:
        InputError: no sum reads a tensor with a grid.
    """
    forks = {node: fork for node in nodes if (fork := _fork(graph, node))}
    if not forks:
        raise InputError(
            "bits.skip: `a sum reads a tensor with a grid` must hold, but got sums=0. Leave bits.skip "
            "out: this network's sums are as they were."
        )
    narrow = [_branch_off(graph, forks[n]) if n in forks else n for n in nodes]
    graph.recompile()
    return [node for node in narrow if node is not None], list(forks)


def _fork(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The node at which sums and other readers of `node` part; None where no sum reads it.

    Operations that every reader shares, such as a reshape, stay in front of it.
    """
    readers = readers_of(graph, node)
    while (
        len(readers) == 1
        and is_passthrough(graph, readers[0])
        and not _leads_to_sums(graph, readers[0])
    ):
        node, readers = readers[0], readers_of(graph, readers[0])
    return node if any(_leads_to_sums(graph, reader) for reader in readers) else None


def restore_branches(graph: fx.GraphModule, names: set[str]) -> None:
    """Branch off again, in place, what a model file has grids for behind ports of these names."""
    for node in find_nodes(graph, lambda n, m: branch_name(n) in names):
        if not any(type(module_of(graph, user)) is Branch for user in node.users):
            _branch_off(graph, node)
    graph.recompile()


def _branch_off(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The port in front of all that is no sum; None where there is nothing else."""
    others = [r for r in readers_of(graph, node) if not _leads_to_sums(graph, r)]
    return give_branch(graph, node, others) if others else None


def _leads_to_sums(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether all that is done with a node's values is adding them to others, moved or not."""
    if is_sum(node):
        return len(node.all_input_nodes) > 1
    readers = readers_of(graph, node) if is_passthrough(graph, node) else []
    return bool(readers) and all(_leads_to_sums(graph, reader) for reader in readers)
