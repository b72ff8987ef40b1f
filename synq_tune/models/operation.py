"""What a node of a graph calls, whatever its module is named, and what is known of its value."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx


def operation(node: fx.Node) -> Any:
    """The function, or the method's name, that a node calls; None for any other kind of node.

    A module may be called "add" or "relu" and be anything: only calls of methods give a name here.
    """
    return node.target if node.op in ("call_function", "call_method") else None


def is_float(node: fx.Node) -> bool:
    """Whether the node gives one tensor of real numbers: no mask, no index, no size."""
    dtype = node.meta.get("dtype", torch.float32)
    return node.meta.get("shape") is not None and dtype.is_floating_point


def is_fixed(node: fx.Node) -> bool:
    """Whether neither images nor training change the node's values."""
    return node.meta.get("constant", "learned") != "learned"
