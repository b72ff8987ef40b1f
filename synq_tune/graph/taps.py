"""Named places in a traced network whose values the losses look at.

A tap is an identity inserted behind a node, so that teacher and student are read at the same place
whatever the network calls its layers, and a copy of the graph keeps it.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from synq_tune.errors import InputError
from synq_tune.graph.attention import attention_outputs
from synq_tune.graph.nodes import find_nodes, insert_after, module_of, operation
from synq_tune.graph.tokens import BATCH, ChannelsLast, TokenGrid, layout_of, patch_grid

CAM_TAP = "tap_cam"
"""Where Grad-CAM and Grad-CAM++ look: behind the last convolution with H·W > 1, before its
BatchNorm. In a transformer behind the last LayerNorm that layers read and whose patches still
count: DeiT's classifier reads the class token, so that patches count last in front of the last
attention (norm1); Swin's reads their mean (norm2). A student's grid behind that LayerNorm stands
before the tap."""
FINAL_MAP_TAP = "tap_final_map"
"""The final feature map, before global pooling and the linear classifier (CAM)."""
FEATURE_TAP = "tap_feature_"
"""Numbered: one branch of each residual addition (feature alignment)."""

_MEANS = ("mean",)
_ROLLS = (torch.roll, F.pad)
_POOLS = (nn.AdaptiveAvgPool2d, nn.AvgPool2d)
_POOL_FUNCTIONS = (F.adaptive_avg_pool2d, F.avg_pool2d, torch.mean)


class TokenTap(nn.Identity):
    """A tap behind values that are no map (N, C, H, W) but lie on one; `record` gives the map."""

    def __init__(self, layout: TokenGrid | ChannelsLast) -> None:
        super().__init__()
        self.layout = layout


def insert_taps(graph: fx.GraphModule, cam_layer: str | None = None) -> None:
    """Insert every tap the network has a place for.

    Args:
        graph: traced network, changed in place.
        cam_layer: name of the module to explain; None chooses the last convolution with H·W > 1.

    Raises:
        InputError: `cam_layer` is not a module that is called and gives a map.
    """
    _insert_feature_taps(graph)
    _insert_final_map_tap(graph)
    node = _named_map(graph, cam_layer) if cam_layer else _explained(graph)
    if node is not None:
        insert_after(graph, node, CAM_TAP, _tap(graph, node))
    graph.recompile()


def _tap(graph: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The tap for a node's values; None where they lie on no map of more than one cell."""
    layout = layout_of(graph, node, patch_grid(graph))
    if layout is not None:
        return TokenTap(layout)
    shape = node.meta.get("shape")
    is_map = shape is not None and len(shape) == 4 and shape[2] * shape[3] > 1
    return nn.Identity() if is_map else None


def _explained(graph: fx.GraphModule) -> fx.Node | None:
    norm = _last_counting_norm(graph) if patch_grid(graph) else None
    return norm or _last_spatial_convolution(graph)


def _last_counting_norm(graph: fx.GraphModule) -> fx.Node | None:
    """A transformer's last LayerNorm that layers read and whose patches the logits depend on."""
    nodes = list(graph.graph.nodes)
    last = nodes.index(attention_outputs(graph)[-1])
    behind = nodes[last:]
    norms = [
        node
        for node in (nodes[:last] if any(map(_takes_one, behind)) else nodes)
        if _is_norm(graph, node) and _tap(graph, node) and _layer_reads(graph, node)
    ]
    return norms[-1] if norms else None


def _is_norm(graph: fx.GraphModule, node: fx.Node) -> bool:
    return isinstance(module_of(graph, node), nn.LayerNorm) or node.target is F.layer_norm


def _takes_one(node: fx.Node) -> bool:
    """Whether a node takes one token of all, such as x[:, 0]."""
    index = node.args[1] if node.target is operator.getitem else None
    return isinstance(index, tuple) and len(index) > 1 and isinstance(index[1], int)


def _layer_reads(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a Linear reads the node's values, as they are or moved, with all their tokens."""
    pending = list(node.users)
    while pending:
        user = pending.pop()
        module = module_of(graph, user)
        if isinstance(module, nn.Linear):
            return True
        is_moved = user.op == "call_method" or user.target in _ROLLS
        if (isinstance(module, nn.Identity) or is_moved) and user.target not in _MEANS:
            pending += user.users
    return False


def _last_spatial_convolution(graph: fx.GraphModule) -> fx.Node | None:
    nodes = find_nodes(graph, lambda n, m: isinstance(m, nn.Conv2d) and _tap(graph, n) is not None)
    return nodes[-1] if nodes else None


def _named_map(graph: fx.GraphModule, name: str) -> fx.Node:
    for node in graph.graph.nodes:
        if node.op == "call_module" and node.target == name and _tap(graph, node):
            return node
    maps = [str(n.target) for n in graph.graph.nodes if n.op == "call_module" and _tap(graph, n)]
    raise InputError(
        f"`cam_layer is a module with a map as output` must hold, but got cam_layer={name!r}. "
        f"The last ones: {', '.join(maps[-4:])}."
    )


def _insert_final_map_tap(graph: fx.GraphModule) -> None:
    for node in reversed(list(graph.graph.nodes)):
        module = module_of(graph, node)
        is_mean = node.op == "call_method" and node.target in _MEANS
        if isinstance(module, _POOLS) or node.target in _POOL_FUNCTIONS or is_mean:
            source = node.args[0]
            tap = _tap(graph, source) if isinstance(source, fx.Node) else None
            if tap is not None and _is_global(node, tap):
                insert_after(graph, source, FINAL_MAP_TAP, tap)
            return


def _is_global(node: fx.Node, tap: nn.Module) -> bool:
    shape = node.meta.get("shape")
    if isinstance(tap, TokenTap):  # of patches alone, and over all of them
        layout, axes = tap.layout, _axes(node)
        return (
            axes == {1, 2}
            if isinstance(layout, ChannelsLast)
            else (layout.prefix, axes) == (0, {1})
        )
    return shape is not None and (len(shape) == 2 or shape[2:] == (1, 1))


def _axes(node: fx.Node) -> set[int]:
    """Axes a mean is over."""
    axes = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    rank = len(node.args[0].meta["shape"])
    given = axes if isinstance(axes, (tuple, list)) else (axes,)
    return {axis % rank for axis in given if isinstance(axis, int)}


def _insert_feature_taps(graph: fx.GraphModule) -> None:
    """Tap the residual branch of each addition of two maps: the later of its two inputs."""
    order = {node: i for i, node in enumerate(graph.graph.nodes)}
    branches = []
    for node in list(graph.graph.nodes):
        if _is_addition(node) and _are_branches(graph, node.args[:2]):
            branches.append(max(node.args[:2], key=order.__getitem__))
    for number, branch in enumerate(dict.fromkeys(branches)):
        insert_after(graph, branch, f"{FEATURE_TAP}{number}", _tap(graph, branch))


def _are_branches(graph: fx.GraphModule, inputs: tuple[object, ...]) -> bool:
    """Whether both are maps of the images, unlike a table that attention adds to its scores."""
    maps = [a for a in inputs if isinstance(a, fx.Node) and _tap(graph, a) is not None]
    return len(maps) == 2 and all(a.meta["shape"][0] == BATCH for a in maps)


def _is_addition(node: fx.Node) -> bool:
    return operation(node) in (operator.add, operator.iadd, torch.add, "add", "add_")


@contextlib.contextmanager
def record(model: nn.Module, names: list[str]) -> Iterator[dict[str, Tensor]]:
    """Collect the values at taps during forwards inside the block; the graph to them is kept.

    Yields:
        Tap name → latest value, as a map (N, C, H, W); hooks are gone when the block ends, also
        after an error.
    """
    values: dict[str, Tensor] = {}

    def keep(name: str) -> object:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> Tensor | None:
            # In a frozen network nothing requires a gradient: the graph starts at the first tap,
            # so that only the head behind it is ever walked.
            if torch.is_grad_enabled() and not output.requires_grad:
                output.requires_grad_(True)
            if not isinstance(module, TokenTap):
                values[name] = output
                return None
            # What follows reads the map, so that gradients can be asked with respect to it.
            values[name] = module.layout.to_map(output)
            return module.layout.to_tokens(values[name], output)

        return hook

    with contextlib.ExitStack() as stack:
        for name in names:
            handle = model.get_submodule(name).register_forward_hook(keep(name))
            stack.callback(handle.remove)
        yield values


def map_cells(graph: fx.GraphModule, name: str) -> int:
    """Cells H · W of the map at a tap."""
    node = next(node for node in graph.graph.nodes if node.target == name)
    shape, tap = node.meta["shape"], graph.get_submodule(name)
    if not isinstance(tap, TokenTap):
        return shape[2] * shape[3]
    layout = tap.layout
    return shape[1] * shape[2] if isinstance(layout, ChannelsLast) else layout.height * layout.width


def tap_names(model: nn.Module, prefix: str) -> list[str]:
    """Names of the taps of `model` that start with `prefix`, in call order."""
    return [name for name, _ in model.named_children() if name.startswith(prefix)]
