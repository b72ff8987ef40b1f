"""Ports: where some readers of a tensor branch off, so that a grid can stand in front of them
alone."""

from __future__ import annotations

from torch import fx, nn

from synq_tune.graph.nodes import module_of
from synq_tune.graph.pointwise import value_inputs


class Branch(nn.Identity):
    """A copy of a tensor for some of its readers. A grid behind it is theirs alone."""


def branch_name(node: fx.Node) -> str:
    """Name of the port behind a node."""
    return f"{node.name}_port"


def give_branch(graph: fx.GraphModule, source: fx.Node, readers: list[fx.Node]) -> fx.Node:
    """Insert a port behind `source` for some of its `readers` (see `readers_of`); the rest stay.

    The caller recompiles `graph`.
    """
    read = next(a for a in readers[0].all_input_nodes if past_identities(graph, a) is source)
    graph.add_submodule(branch_name(source), Branch())
    with graph.graph.inserting_after(read):
        name = branch_name(source)
        port = graph.graph.create_node("call_module", name, (read,), {}, name=name)
    port.meta["shape"] = source.meta.get("shape")
    for reader in readers:
        for a in list(reader.all_input_nodes):
            if past_identities(graph, a) is source:
                reader.replace_input_with(a, port)
    return port


def readers_of(graph: fx.GraphModule, node: fx.Node) -> list[fx.Node]:
    """What reads a node's values, through identities; asking for its batch size is no reading."""
    found: list[fx.Node] = []
    for user in node.users:
        if is_identity(graph, user):
            found += readers_of(graph, user)
        elif node in value_inputs(user):
            found.append(user)
    return found


def past_identities(graph: fx.GraphModule, node: fx.Node) -> fx.Node:
    """The first node on the way back that is more than an identity."""
    while is_identity(graph, node):
        node = node.args[0]
    return node


def is_identity(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the node only hands its input on, as taps do; a port does more."""
    module = module_of(graph, node)
    return isinstance(module, nn.Identity) and type(module) is not Branch
