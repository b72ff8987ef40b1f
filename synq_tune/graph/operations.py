"""What a node of a graph calls, whatever its module is named, and what is known of its value."""

from __future__ import annotations

import operator

import torch
import torch.nn.functional as F
from torch import fx, nn

from synq_tune.graph.nodes import is_fixed, is_float, module_of, operation

# Operations that only move values, drop some, or add zeros: their output is on their input's grid.
_MOVING_MODULES = (
    nn.Identity, nn.Flatten, nn.Unflatten, nn.MaxPool2d, nn.Dropout, nn.Dropout1d, nn.Dropout2d,
    nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle, nn.ZeroPad2d,
)  # fmt: skip

_MOVING_FUNCTIONS = (
    torch.flatten, torch.reshape, torch.transpose, torch.permute, torch.chunk, torch.split,
    torch.squeeze, torch.unsqueeze, torch.unbind, F.dropout, F.max_pool2d, F.pad,
    F.channel_shuffle, F.pixel_shuffle, F.pixel_unshuffle, operator.getitem, getattr, torch.roll,
)  # fmt: skip

_MOVING_METHODS = (
    "flatten", "view", "reshape", "transpose", "permute", "contiguous", "chunk", "split", "squeeze",
    "unsqueeze", "unbind", "expand", "expand_as", "repeat", "detach", "clone", "float", "to", "type_as",
    "roll",
)  # fmt: skip

_CLIPPING_MODULES = (nn.ReLU, nn.Hardtanh)  # ReLU6 is a Hardtanh

_CLIPPING_FUNCTIONS = (
    F.relu, F.relu_, torch.relu, torch.relu_, F.relu6, F.hardtanh, F.hardtanh_, "relu", "relu_",
)  # fmt: skip

_BATCHNORMS = (nn.BatchNorm1d, nn.BatchNorm2d)

_LAYERS = (nn.Conv2d, nn.Linear)

_SUMS = (operator.add, operator.iadd, torch.add, "add", "add_")


def is_float_map(node: fx.Node) -> bool:
    """Whether the node gives one tensor of real numbers with a batch dimension."""
    if node.op in ("output", "get_attr") or not is_float(node) or is_fixed(node):
        return False
    return len(node.meta["shape"]) > 1


def is_passthrough(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the node only moves values of its input, so that a grid of its own would be one too
    many."""
    module = module_of(graph, node)
    if module is not None:
        return isinstance(module, _MOVING_MODULES)
    targets = _MOVING_METHODS if node.op == "call_method" else _MOVING_FUNCTIONS
    return node.op in ("call_method", "call_function") and node.target in targets


def is_fused(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether hardware computes the node and the one behind it as one operation."""
    user = only_user(graph, node)
    if user is None:
        return False
    module, next_module = module_of(graph, node), module_of(graph, user)
    clips = isinstance(next_module, _CLIPPING_MODULES) or operation(user) in _CLIPPING_FUNCTIONS
    if isinstance(module, _LAYERS):
        return clips or isinstance(next_module, _BATCHNORMS)
    return clips and (isinstance(module, _BATCHNORMS) or is_sum(node))


def is_sum(node: fx.Node) -> bool:
    """Whether the node adds two values."""
    return operation(node) in _SUMS


def is_logits(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the node computes what the network gives back."""
    return node is _logits(graph)


def only_user(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The one node that reads this one, looking through taps; None if there are several."""
    while len(node.users) == 1:
        user = next(iter(node.users))
        if not isinstance(module_of(graph, user), nn.Identity):
            return user
        node = user
    return None


def _logits(graph: fx.GraphModule) -> fx.Node:
    """The node that computes the output, which others may only move."""
    node = next(n for n in graph.graph.nodes if n.op == "output").args[0]
    while is_passthrough(graph, node):
        node = node.args[0]
    return node
