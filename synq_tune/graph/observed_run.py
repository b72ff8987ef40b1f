"""One run of a graph that notes what lies where in memory, and which inputs an operation
changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from synq_tune.graph.layouts import Layout


@dataclass
class Seen:
    """What one node did."""

    value: Any = None
    layouts: tuple[Layout, ...] = ()
    """Of its tensors, as they were when it had run."""
    changed: fx.Node | None = None
    """The input whose values or shape it changed in place."""
    changed_to: tuple[Layout, ...] = ()
    """That input's layouts behind the change."""


class ObservedRun(fx.Interpreter):
    """Runs a graph node by node; `seen` has every node. All values stay, so that memory is not
    reused."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph, garbage_collect_values=False)
        self.seen: dict[fx.Node, Seen] = {}
        self._own: dict[str, Tensor] = {}

    def run_node(self, node: fx.Node) -> Any:
        """As in torch, with notes.

        Versions count every change of a tensor, whichever operation makes it and through whichever
        view.
        """
        before = {n: _state(self.env[n]) for n in node.all_input_nodes}
        value = super().run_node(node)
        if node.op == "get_attr" and isinstance(value, Tensor):
            # An operation in place must not change the network itself.
            value = self._own.setdefault(str(node.target), value.clone())
        changed = [n for n, state in before.items() if _state(self.env[n]) != state]
        first = changed[0] if changed else None
        after = layouts_of(self.env[first]) if first else ()
        self.seen[node] = Seen(value, layouts_of(value), first, after)
        return value


def observe(graph: fx.GraphModule, example: Tensor) -> dict[fx.Node, Seen]:
    """Run `graph` on a batch (N, C, H, W); the global random state stays.

    `meta` of every node gets "shape" and, where it gives one tensor, "dtype".
    """
    run = ObservedRun(graph)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        inputs = [n for n in graph.graph.nodes if n.op == "placeholder"]
        run.run(*(example.clone() for _ in inputs), enable_io_processing=False)
    for node, seen in run.seen.items():
        note(node, seen.layouts[0] if isinstance(seen.value, Tensor) else None)
    return run.seen


def note(node: fx.Node, layout: Layout | None) -> None:
    """Write down shape and type of a node's value; None: it is no tensor."""
    node.meta["shape"] = layout.shape if layout else None
    node.meta.pop("dtype", None)
    if layout:
        node.meta["dtype"] = layout.dtype


def layouts_of(value: Any) -> tuple[Layout, ...]:
    """Layouts of the tensors in a value, which may be a tuple or a list of them."""
    return tuple(Layout.of(x) for x in _tensors(value))


def _state(value: Any) -> list[tuple[int, Layout]]:
    return [(x._version, Layout.of(x)) for x in _tensors(value)]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)
