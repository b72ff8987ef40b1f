"""What a call reads comes first: `conv(input=x)` as `conv(x)`, `torch.cat(tensors=[a, b])` alike."""

from __future__ import annotations

import inspect
from typing import Any

from torch import fx, nn

_FIRST = ("condition", "input", "tensors", "tensor", "self", "query")
"""What torch calls the first argument of its functions, in the order in which they come first."""


def make_positional(root: nn.Module, graph: fx.Graph) -> None:
    """Rewrite, in place, every call that passes by keyword what it reads."""
    for node in graph.nodes:
        if node.args or not node.kwargs:
            continue
        if node.op == "call_module":
            first = next(
                iter(inspect.signature(root.get_submodule(node.target).forward).parameters)
            )
        else:
            first = next((name for name in _FIRST if name in node.kwargs), "")
        if node.op in ("call_module", "call_function") and first in node.kwargs:
            _move(node, first)


def _move(node: fx.Node, name: str) -> None:
    kwargs: dict[str, Any] = dict(node.kwargs)
    node.args, node.kwargs = (kwargs.pop(name),), kwargs
