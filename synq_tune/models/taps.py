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
from synq_tune.models.graph import find_nodes, insert_after, module_of

CAM_TAP = "tap_cam"
"""Behind the last convolution with H·W > 1, before its BatchNorm (Grad-CAM, Grad-CAM++)."""
FINAL_MAP_TAP = "tap_final_map"
"""The final feature map, before global pooling and the linear classifier (CAM)."""
FEATURE_TAP = "tap_feature_"
"""Numbered: one branch of each residual addition (feature alignment)."""

_POOLS = (nn.AdaptiveAvgPool2d, nn.AvgPool2d)
_POOL_FUNCTIONS = (F.adaptive_avg_pool2d, F.avg_pool2d, torch.mean)


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
    node = _named_map(graph, cam_layer) if cam_layer else _last_spatial_convolution(graph)
    if node is not None:
        insert_after(graph, node, CAM_TAP, nn.Identity())
    graph.recompile()


def _is_map(node: fx.Node) -> bool:
    shape = node.meta.get("shape")
    return shape is not None and len(shape) == 4 and shape[2] * shape[3] > 1


def _last_spatial_convolution(graph: fx.GraphModule) -> fx.Node | None:
    nodes = find_nodes(graph, lambda n, m: isinstance(m, nn.Conv2d) and _is_map(n))
    return nodes[-1] if nodes else None


def _named_map(graph: fx.GraphModule, name: str) -> fx.Node:
    for node in graph.graph.nodes:
        if node.op == "call_module" and node.target == name and _is_map(node):
            return node
    maps = [str(n.target) for n in graph.graph.nodes if n.op == "call_module" and _is_map(n)]
    raise InputError(
        f"`cam_layer is a module with a map as output` must hold, but got cam_layer={name!r}. "
        f"The last ones: {', '.join(maps[-4:])}."
    )


def _insert_final_map_tap(graph: fx.GraphModule) -> None:
    for node in reversed(list(graph.graph.nodes)):
        module = module_of(graph, node)
        is_mean = node.op == "call_method" and node.target == "mean"
        if isinstance(module, _POOLS) or node.target in _POOL_FUNCTIONS or is_mean:
            source = node.args[0]
            if isinstance(source, fx.Node) and _is_map(source) and _is_global(node):
                insert_after(graph, source, FINAL_MAP_TAP, nn.Identity())
            return


def _is_global(node: fx.Node) -> bool:
    shape = node.meta.get("shape")
    return shape is not None and (len(shape) == 2 or shape[2:] == (1, 1))


def _insert_feature_taps(graph: fx.GraphModule) -> None:
    """Tap the residual branch of each addition of two maps: the later of its two inputs."""
    order = {node: i for i, node in enumerate(graph.graph.nodes)}
    branches = []
    for node in list(graph.graph.nodes):
        inputs = [a for a in node.args if isinstance(a, fx.Node) and _is_map(a)]
        if _is_addition(node) and len(inputs) == 2:
            branches.append(max(inputs, key=order.__getitem__))
    for number, branch in enumerate(dict.fromkeys(branches)):
        insert_after(graph, branch, f"{FEATURE_TAP}{number}", nn.Identity())


def _is_addition(node: fx.Node) -> bool:
    return node.target in (operator.add, operator.iadd, torch.add, "add", "add_")


@contextlib.contextmanager
def record(model: nn.Module, names: list[str]) -> Iterator[dict[str, Tensor]]:
    """Collect the values at taps during forwards inside the block; the graph to them is kept.

    Yields:
        Tap name → latest value; its hooks are gone when the block ends, also after an error.
    """
    values: dict[str, Tensor] = {}

    def keep(name: str) -> object:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            # In a frozen network nothing requires a gradient: the graph starts at the first tap,
            # so that only the head behind it is ever walked.
            if torch.is_grad_enabled() and not output.requires_grad:
                output.requires_grad_(True)
            values[name] = output

        return hook

    with contextlib.ExitStack() as stack:
        for name in names:
            handle = model.get_submodule(name).register_forward_hook(keep(name))
            stack.callback(handle.remove)
        yield values


def tap_names(model: nn.Module, prefix: str) -> list[str]:
    """Names of the taps of `model` that start with `prefix`, in call order."""
    return [name for name, _ in model.named_children() if name.startswith(prefix)]
