"""A graph without operations in place: each gives a new tensor, which all later readers read.

A grid stands behind a node. If the network writes an activation into its input and goes on with
that (`self.relu(x)`), the grid behind the call would have no reader and the values would pass
beside it. What changes what is seen by running the graph once, not by names.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import fx

from synq_tune.errors import InputError
from synq_tune.graph.layouts import Layout, Region, is_reshaped, permutation, region
from synq_tune.graph.observed_run import Seen, note
from synq_tune.graph.out_of_place import leave_input_alone, switch_off_modules


def make_functional(graph: fx.GraphModule, seen: dict[fx.Node, Seen]) -> bool:
    """Rewrite `graph` in place; names of nodes stay. True where anything but modules changed.

    Args:
        graph: traced.
        seen: from `observe(graph, …)`.

    Raises:
        InputError: what an operation changes is read in a form that cannot be put together again.
    """
    for node in graph.graph.nodes:
        if node.kwargs.get("out") is not None:
            _refuse(node, "writes its result into another tensor (out=)")
    changes = any(s.changed for s in seen.values())
    if changes:
        _Rewriter(graph, seen).run()
    switch_off_modules(graph)
    return changes


def _refuse(node: fx.Node, what: str) -> None:
    name = node.target if isinstance(node.target, str) else node.target.__name__
    raise InputError(
        f"`operations leave their inputs as they are` must hold, but got {name} at {node.name}, "
        f"which {what}. Write it as y = f(x) in the network."
    )


@dataclass
class _Change:
    """What an operation has written: `node` gives the values that lie at `layout` now."""

    node: fx.Node
    layout: Layout


class _Rewriter:
    """Walks the nodes in call order and hands every reader the values of its moment."""

    def __init__(self, graph: fx.GraphModule, seen: dict[fx.Node, Seen]) -> None:
        self.graph, self.seen = graph, seen
        self.changes: dict[int, list[_Change]] = {}
        self.now_at: dict[fx.Node, tuple[fx.Node, int]] = {}
        """Node → the node that has its present values, and how many changes that one knows of."""
        self.fixed = {s for n, v in seen.items() if n.op == "get_attr" for s in _storages(v)}

    def run(self) -> None:
        for node in list(self.graph.graph.nodes):
            changed = self.seen[node].changed
            layouts = self._before(changed) if changed else ()
            for source in node.all_input_nodes:
                node.replace_input_with(source, self.present(source, node))
            if changed is not None:
                self._make_new(node, changed, layouts)
            self.now_at[node] = node, self._count(node)

    def _before(self, node: fx.Node) -> tuple[Layout, ...]:
        return self.seen[node].layouts

    def _count(self, node: fx.Node) -> int:
        return sum(len(self.changes.get(s, ())) for s in _storages(self.seen[node]))

    def _make_new(self, node: fx.Node, changed: fx.Node, layouts: tuple[Layout, ...]) -> None:
        """The operation gives a new tensor; it is what `changed` holds from here on."""
        if len(layouts) != 1:
            _refuse(node, "changes a tuple of tensors")
        layout, new = layouts[0], node
        if self._is_reshaped_in_place(node, changed, layout):
            return
        if node.target is operator.setitem:
            new, layout = self._assigned(node, changed)
        elif not leave_input_alone(self.graph, node):
            _refuse(node, f"changes {changed.name} in place")
        new = self._cast(node, new, layout)
        self.changes.setdefault(layout.storage, []).append(_Change(new, layout))
        note(node, self.seen[node].layouts[0] if self.seen[node].layouts else layout)

    def _is_reshaped_in_place(self, node: fx.Node, changed: fx.Node, layout: Layout) -> bool:
        """`x.unsqueeze_(0)`: the tensor itself has another shape; its views stay what they are."""
        tensor, after = self.seen[changed].value, self.seen[node].changed_to
        if after == (layout,):
            return False
        if not leave_input_alone(self.graph, node):
            _refuse(node, f"changes the shape of {changed.name}")
        for alias, seen in self.seen.items():
            if seen.value is tensor:
                seen.layouts = after
                self.now_at[alias] = node, self._count(alias)
        note(node, after[0])
        return True

    def _cast(self, node: fx.Node, new: fx.Node, layout: Layout) -> fx.Node:
        """In place a tensor keeps its type; out of place a wider input would win."""
        others = [s for n in node.all_input_nodes for s in self._before(n)] if new is node else []
        if all(torch.promote_types(layout.dtype, o.dtype) == layout.dtype for o in others):
            return new
        return self._after(new, "to", (new, layout.dtype), layout)

    def _after(self, node: fx.Node, method: str, args: tuple, layout: Layout) -> fx.Node:
        with self.graph.graph.inserting_after(node):
            new = self.graph.graph.call_method(method, args)
        return self._known(new, layout)

    def _known(self, node: fx.Node, layout: Layout) -> fx.Node:
        note(node, layout)
        self.seen[node] = Seen(None, (layout,))
        return node

    def _assigned(self, node: fx.Node, changed: fx.Node) -> tuple[fx.Node, Layout]:
        """`x[index] = value`: the value as large as the part of x that it fills."""
        _, index, value = node.args
        if self._is_mask(index, changed) and not isinstance(value, fx.Node):
            node.op, node.target = "call_method", "masked_fill"
            return self._known(node, self._before(changed)[0]), self._before(changed)[0]
        part = self.seen[changed].value[index] if not _has_nodes(index) else None
        layout = Layout.of(part) if part is not None else None
        if layout is None or layout.storage != self._before(changed)[0].storage:
            _refuse(node, f"fills the places of {changed.name} that a tensor names")
        graph = self.graph.graph
        with graph.inserting_before(node):
            view = self._known(graph.call_function(operator.getitem, (node.args[0], index)), layout)
            if isinstance(value, fx.Node):
                filled = graph.call_method("expand_as", (value, view))
            else:
                filled = graph.call_function(torch.full_like, (view, value))
        return self._known(filled, layout), layout

    def _is_mask(self, index: object, changed: fx.Node) -> bool:
        """Whether `x[index]` has a place for every element of x."""
        if not isinstance(index, fx.Node):
            return False
        layouts = self.seen[index].layouts
        whole = self._before(changed)[0]
        return [(i.dtype, i.shape) for i in layouts] == [(torch.bool, whole.shape)]

    def present(self, node: fx.Node, reader: fx.Node) -> fx.Node:
        """The node that has `node`'s values of this moment, made in front of `reader` if need
        be."""
        current, known = self.now_at.get(node, (node, 0))
        layouts, count = self.seen[node].layouts, self._count(node)
        pending = [c for s in _storages(self.seen[node]) for c in self.changes.get(s, ())][known:]
        pending = [c for c in pending if any(c.layout.overlaps(own) for own in layouts)]
        if pending and self.fixed & set(_storages(self.seen[node])):
            _refuse(pending[0].node, f"changes {node.name}, which belongs to the network itself,")
        for change in pending:
            new = self._with(node, current, change, reader) if len(layouts) == 1 else None
            if new is None:
                current = self._computed_again(node, change, reader)
                break
            current = new
        self.now_at[node] = self.now_at[current] = current, count
        return current

    def _with(
        self, node: fx.Node, current: fx.Node, change: _Change, reader: fx.Node
    ) -> fx.Node | None:
        """`current` with the change written into it; None where that takes more than joining
        parts."""
        layout = self.seen[node].layouts[0]
        if change.layout == layout:
            return change.node
        if not layout.contains(change.layout) or layout.dtype != change.layout.dtype:
            return None
        make = _maker(self.graph.graph, reader, layout.dtype)
        if change.layout.contains(layout):
            new = _turned(make, change, layout)
        else:
            found = region(layout, change.layout)
            new = _joined(make, current, change.node, found, layout) if found else None
        return self._known(new, layout) if new is not None else None

    def _computed_again(self, node: fx.Node, change: _Change, reader: fx.Node) -> fx.Node:
        """A view whose source has changed, taken of the source as it is now."""
        storages = set(_storages(self.seen[node]))
        source = next(
            (n for n in node.all_input_nodes if storages & set(_storages(self.seen[n]))), None
        )
        if source is None or self.seen[node].changed is not None:
            _refuse(change.node, f"changes a part of {node.name} that is read as a whole later")
        current = self.present(source, reader)
        with self.graph.graph.inserting_before(reader):
            new = self.graph.graph.node_copy(node, lambda n: current if n is source else n)
        self.seen[new] = Seen(None, self.seen[node].layouts)
        return new


def _storages(seen: Seen) -> list[int]:
    return list(dict.fromkeys(layout.storage for layout in seen.layouts))


def _has_nodes(index: object) -> bool:
    found: list[fx.Node] = []
    fx.node.map_arg(index, found.append)
    return bool(found)


Make = Callable[..., fx.Node]


def _maker(graph: fx.Graph, reader: fx.Node, dtype: torch.dtype) -> Make:
    def make(target: object, args: tuple, shape: tuple[int, ...]) -> fx.Node:
        with graph.inserting_before(reader):
            is_method = isinstance(target, str)
            new = (graph.call_method if is_method else graph.call_function)(target, args)
        new.meta.update(shape=shape, dtype=dtype)
        return new

    return make


def _turned(make: Make, change: _Change, layout: Layout) -> fx.Node | None:
    """All of the changed elements in another shape."""
    axes = permutation(layout, change.layout)
    if axes is not None:
        return make("permute", (change.node, axes), layout.shape)
    if is_reshaped(layout, change.layout):
        return make("reshape", (change.node, (-1, *layout.shape[1:])), layout.shape)
    return None


def _joined(
    make: Make, whole: fx.Node, part: fx.Node, found: Region, layout: Layout
) -> fx.Node | None:
    """`part` in its place between what is left of `whole`."""
    if found.bounds[0] != (0, layout.shape[0]):
        return None  # which images it is would depend on the batch
    shape = list(layout.shape)
    for axis in found.dropped:
        part = make("unsqueeze", (part, axis), part.meta["shape"])
    cut = [d for d, (s, n) in enumerate(found.bounds) if (s, n) != (0, shape[d])]
    return _join_along(make, whole, part, found, cut, tuple(shape))


def _join_along(
    make: Make, whole: fx.Node, part: fx.Node, found: Region, axes: list[int], shape: tuple
) -> fx.Node:
    if not axes:
        return part
    axis, rest = axes[0], axes[1:]
    start, length = found.bounds[axis]

    def rows(first: int, last: int) -> fx.Node:
        index = (*[slice(None)] * axis, slice(first, last))
        size = (*shape[:axis], last - first, *shape[axis + 1 :])
        return make(operator.getitem, (whole, index), size)

    end, size = start + length, shape[axis]
    inner_shape = (*shape[:axis], length, *shape[axis + 1 :])
    inner = rows(start, end) if rest else part
    middle = _join_along(make, inner, part, found, rest, inner_shape) if rest else part
    before = [rows(0, start)] if start else []
    after = [rows(end, size)] if end < size else []
    return make(torch.cat, ([*before, middle, *after], axis), shape)
