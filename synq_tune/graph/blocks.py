"""A traced network cut into units that can be fitted one after the other.

A cut is possible behind a node where its tensor is all that later nodes read: behind each layer of
a chain, and where a residual sum, a gate or a concatenation joins what had parted. What lies
between two cuts and has layers is a unit: a residual block, or a single layer. Norms, activations,
poolings and moves stay with the layer in front of them, grids of values with the layer behind.
Nothing here knows the name of a class of blocks.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

from torch import fx, nn

from synq_tune.errors import InputError
from synq_tune.graph.nodes import is_float, module_of
from synq_tune.graph.pointwise import value_inputs

_BATCH = 2
"""What shapes were traced for."""
_LAYERS = (nn.Conv2d, nn.Linear)

IsGrid = Callable[[nn.Module], bool]
"""Whether a module puts values on a grid: it belongs to what reads them."""


@dataclass(frozen=True)
class Unit:
    """A stretch of a graph that reads one tensor and gives one."""

    name: str
    """The layer's, or what the names of its layers begin with."""
    source: fx.Node
    """Whose tensor it reads."""
    nodes: tuple[fx.Node, ...]
    """In call order; the last one gives the unit's tensor."""
    layers: tuple[str, ...]
    """Convolutions and linear layers by name, in call order."""

    @property
    def output(self) -> fx.Node:
        """The node whose tensor the unit gives."""
        return self.nodes[-1]


def cut(
    graph: fx.GraphModule, merged: Sequence[str] = (), is_grid: IsGrid = lambda module: False
) -> list[Unit]:
    """Every node that images change, in units; each unit reads what the one before it gives.

    Args:
        graph: a traced network, with or without grids.
        merged: globs over names of modules, such as `layer1.*` or `layer1`: what each module that
            matches holds becomes one unit, with what one tensor alone cannot part from it.
        is_grid: tells the modules that are grids of values.

    Raises:
        InputError: a glob matches no module with layers.
    """
    stretches = _stretches(graph)
    groups = _joined(graph, _grouped(graph, stretches, is_grid), _shared(graph))
    if merged:
        groups = _joined(graph, groups, _matched(graph, merged))
    return _named(graph, groups)


def unit_module(graph: fx.GraphModule, unit: Unit) -> fx.GraphModule:
    """The unit as a module of its own: tensor (N, …) → tensor (N, …); it shares all submodules."""
    new = fx.Graph()
    copies = {unit.source: new.placeholder("x")}
    inside = set(unit.nodes)
    for node in unit.nodes:
        _copy(node, new, copies, inside, unit)
    new.output(copies[unit.output])
    return fx.GraphModule(graph, new).train(graph.training)


def _copy(
    node: fx.Node, new: fx.Graph, copies: dict[fx.Node, fx.Node], inside: set[fx.Node], unit: Unit
) -> fx.Node:
    """Copy a node and the constants and sizes that it reads."""
    if node in copies:
        return copies[node]
    for read in node.all_input_nodes:
        if read not in copies and read not in inside and not _is_within(read, inside, unit):
            copies[read] = new.call_method("size", (copies[unit.source], 0))
        else:
            _copy(read, new, copies, inside, unit)
    copies[node] = new.node_copy(node, copies.__getitem__)
    return copies[node]


def _is_within(node: fx.Node, inside: set[fx.Node], unit: Unit) -> bool:
    """Whether an outer node is made of constants alone, or of the size of a tensor of the unit.

    Any other is the number of images, read off an earlier tensor.
    """
    reads = node.all_input_nodes
    return all(
        r in inside or r is unit.source or (r.op != "placeholder" and _is_within(r, inside, unit))
        for r in reads
    ) and (node.op == "get_attr" or bool(reads))


def _depends(graph: fx.GraphModule) -> set[fx.Node]:
    """Nodes whose values images change; the number of images is no value."""
    found: set[fx.Node] = set()
    for node in graph.graph.nodes:
        if node.op == "placeholder" or any(r in found for r in value_inputs(node)):
            found.add(node)
    return found


def _stretches(graph: fx.GraphModule) -> list[list[fx.Node]]:
    """The nodes that images change, parted wherever one tensor alone is read later."""
    values = _depends(graph)
    nodes = [n for n in graph.graph.nodes if n in values and n.op != "output"]
    place = {node: i for i, node in enumerate(graph.graph.nodes)}
    last = {n: max((place[u] for u in n.users if u in values), default=place[n]) for n in nodes}
    found, current, reach = [], [], -1
    for node in nodes:
        if node.op == "placeholder":
            reach = max(reach, last[node])
            continue
        current.append(node)
        if reach <= place[node] and _can_be_cut(node):
            found.append(current)
            current = []
        reach = max(reach, last[node])
    return found if not current else [*found[:-1], [*found[-1], *current]] if found else [current]


def _can_be_cut(node: fx.Node) -> bool:
    shape = node.meta.get("shape")
    return is_float(node) and len(shape) > 1 and shape[0] == _BATCH


def _layers_of(graph: fx.GraphModule, nodes: Iterable[fx.Node]) -> list[str]:
    """Convolutions, linear layers and whatever else has a matrix to learn, once each."""
    return list(dict.fromkeys(str(n.target) for n in nodes if _is_layer(module_of(graph, n))))


def _is_layer(module: nn.Module | None) -> bool:
    if module is None or isinstance(module, _LAYERS):
        return module is not None
    return any(p.dim() > 1 for p in module.parameters())


def _grouped(
    graph: fx.GraphModule, stretches: list[list[fx.Node]], is_grid: IsGrid
) -> list[list[fx.Node]]:
    """Stretches joined until each group has its layer, or its block of layers."""
    groups: list[list[fx.Node]] = []
    for stretch in stretches:
        module = module_of(graph, stretch[0])
        starts = bool(_layers_of(graph, stretch)) or (module is not None and is_grid(module))
        if groups and not (starts and _layers_of(graph, groups[-1])):
            groups[-1] = groups[-1] + stretch
        else:
            groups.append(list(stretch))
    if len(groups) > 1 and not _layers_of(graph, groups[-1]):
        groups[-2:] = [groups[-2] + groups[-1]]
    return groups


def _shared(graph: fx.GraphModule) -> list[set[str]]:
    """Every module of its own: one that is called twice holds its calls together."""
    calls = [str(n.target) for n in graph.graph.nodes if n.op == "call_module"]
    owners = {id(p): name for name in calls for p in graph.get_submodule(name).parameters()}
    repeated = {name for name in calls if calls.count(name) > 1}
    return [{name} for name in sorted(repeated & set(owners.values()))]


def _matched(graph: fx.GraphModule, globs: Sequence[str]) -> list[set[str]]:
    """Layers of each outermost module that a glob matches."""
    layers = _layers_of(graph, graph.graph.nodes)
    modules = {layer.rsplit(".", n)[0] for layer in layers for n in range(layer.count(".") + 1)}
    found = []
    for pattern in globs:
        names = fnmatch.filter(sorted(modules), pattern)
        if not names:
            raise InputError(
                "reconstruct.blocks: `a pattern matches a module with layers` must hold, but got "
                f"{pattern!r}. Modules: {', '.join(sorted(modules)[:6])}, …"
            )
        outermost = [n for n in names if not any(_holds(o, n) for o in names if o != n)]
        found += [{layer for layer in layers if _holds(name, layer)} for name in outermost]
    return found


def _holds(module: str, name: str) -> bool:
    return name == module or name.startswith(module + ".")


def _joined(
    graph: fx.GraphModule, groups: list[list[fx.Node]], together: list[set[str]]
) -> list[list[fx.Node]]:
    """Groups from the first to the last one with a module of each set made one."""
    for names in together:
        held = [i for i, g in enumerate(groups) if names & {str(n.target) for n in g}]
        if len(held) > 1:
            first, last = held[0], held[-1] + 1
            groups = [*groups[:first], sum(groups[first:last], []), *groups[last:]]
    return groups


def _named(graph: fx.GraphModule, groups: list[list[fx.Node]]) -> list[Unit]:
    layers = [_layers_of(graph, group) for group in groups]
    names = [_common(names) for names in layers]
    source = next(n for n in graph.graph.nodes if n.op == "placeholder")
    units = []
    for group, own, name in zip(groups, layers, names, strict=True):
        if not name or names.count(name) > 1:
            name = f"{own[0]} … {own[-1]}" if len(own) > 1 else (own or [group[-1].name])[0]
        units.append(Unit(name, source, tuple(group), tuple(own)))
        source = group[-1]
    return units


def _common(names: list[str]) -> str:
    """What dotted names begin with in common."""

    def both(a: list[str], b: list[str]) -> list[str]:
        pairs = zip(a, b, strict=False)
        return a[: next((i for i, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)))]

    return ".".join(reduce(both, (name.split(".") for name in names))) if names else ""
