"""Turn calls of functions on a layer's own parameters back into calls of the plain layer.

Libraries subclass `nn.Conv2d` (padding as in TensorFlow), `nn.BatchNorm2d` (with an activation
inside) and `nn.LayerNorm`; tracing opens them and finds `conv2d(x, weight, …)`, `batch_norm(x, …)`.
As calls of plain modules they are named, quantized, observed and exported like every other layer.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_CONVOLUTION_DEFAULTS = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
_BATCHNORM = (
    "input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps",
)  # fmt: skip
_LAYERNORM = ("input", "normalized_shape", "weight", "bias", "eps")
_TRAINING_ONLY = {"dropout": 2, "stochastic_depth": 3}
"""Functions that do nothing where their argument `training`, at this position, is false."""
_PLAIN_BATCHNORM = {4: nn.BatchNorm2d, 3: nn.BatchNorm1d, 2: nn.BatchNorm1d, 5: nn.BatchNorm3d}


def modularize(root: nn.Module, graph: fx.Graph) -> None:
    """Rewrite `graph` in place; layers of `root` that were opened become plain ones.

    Numbers, parameter names and parameters stay. A call whose weight is not a parameter of one
    layer is left as it is.
    """
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if node.target in (F.conv2d, torch.conv2d):
            _convolution(root, graph, node)
        elif node.target is F.linear:
            _linear(root, graph, node)
        elif node.target in (F.batch_norm, torch.batch_norm):
            _batchnorm(root, graph, node)
        elif node.target is F.layer_norm:
            _layernorm(root, graph, node)
        elif _is_inert(node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    _drop_unused_attributes(graph)


def _drop_unused_attributes(graph: fx.Graph) -> None:
    """Not eliminate_dead_code: an operation in place may matter though nobody uses its result."""
    for node in reversed(list(graph.nodes)):
        is_size = node.op == "call_method" and node.target == "size"
        if not node.users and (node.op == "get_attr" or is_size):
            graph.erase_node(node)


def _is_inert(node: fx.Node) -> bool:
    position = _TRAINING_ONLY.get(getattr(node.target, "__name__", ""))
    if position is None:
        return False
    training = node.args[position] if len(node.args) > position else node.kwargs.get("training")
    return training is False


def _bound(node: fx.Node, names: tuple[str, ...], defaults: dict[str, Any]) -> dict[str, Any]:
    return {**defaults, **dict(zip(names, node.args, strict=False)), **node.kwargs}


def _owner(root: nn.Module, kind: type[nn.Module], **tensors: Any) -> tuple[str, Any]:
    """Name and module of the one layer whose attributes the get_attr nodes are, or ("", None)."""
    names = set()
    for attribute, node in tensors.items():
        if node is None:
            continue
        if not isinstance(node, fx.Node) or node.op != "get_attr":
            return "", None
        prefix, _, last = str(node.target).rpartition(".")
        names.add(prefix if last == attribute else None)
    name = names.pop() if len(names) == 1 else None
    module = root.get_submodule(name) if name else None
    return (name, module) if isinstance(module, kind) else ("", None)


def _convolution(root: nn.Module, graph: fx.Graph, node: fx.Node) -> None:
    call = _bound(node, _CONVOLUTION, _CONVOLUTION_DEFAULTS)
    name, layer = _owner(root, nn.Conv2d, weight=call["weight"], bias=call["bias"])
    if layer is None:
        return
    layer.__class__ = nn.Conv2d
    for key in ("stride", "padding", "dilation"):
        value = call[key]
        setattr(layer, key, value if isinstance(value, str) else _pair(value))
    # The padding of the call is all there is: what the subclass padded by itself is a node before.
    layer.padding_mode = "zeros"
    _call(graph, node, name, call["input"])


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    values = (value, value) if isinstance(value, int) else tuple(value)
    return values * 2 if len(values) == 1 else values


def _linear(root: nn.Module, graph: fx.Graph, node: fx.Node) -> None:
    call = _bound(node, ("input", "weight", "bias"), {"bias": None})
    name, layer = _owner(root, nn.Linear, weight=call["weight"], bias=call["bias"])
    if layer is not None:
        layer.__class__ = nn.Linear
        _call(graph, node, name, call["input"])


def _batchnorm(root: nn.Module, graph: fx.Graph, node: fx.Node) -> None:
    call = _bound(node, _BATCHNORM, {"weight": None, "bias": None, "training": False, "eps": 1e-5})
    tensors = {key: call[key] for key in ("running_mean", "running_var", "weight", "bias")}
    name, layer = _owner(root, nn.modules.batchnorm._BatchNorm, **tensors)
    if layer is None or call["training"]:
        return
    rank = len(node.meta["shape"])
    layer.__class__ = _PLAIN_BATCHNORM[rank]
    layer.eps = call["eps"]
    _call(graph, node, name, call["input"])


def _layernorm(root: nn.Module, graph: fx.Graph, node: fx.Node) -> None:
    call = _bound(node, _LAYERNORM, {"weight": None, "bias": None, "eps": 1e-5})
    name, layer = _owner(root, nn.LayerNorm, weight=call["weight"], bias=call["bias"])
    if layer is None or tuple(call["normalized_shape"]) != tuple(layer.normalized_shape):
        return
    layer.__class__ = nn.LayerNorm
    layer.eps = call["eps"]
    _call(graph, node, name, call["input"])


def _call(graph: fx.Graph, node: fx.Node, name: str, x: fx.Node) -> None:
    with graph.inserting_before(node):
        called = graph.call_module(name, (x,))
    called.meta.update(node.meta)
    node.replace_all_uses_with(called)
    graph.erase_node(node)
