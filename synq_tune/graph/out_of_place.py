"""The operation that gives as a new tensor what another writes into its input."""

from __future__ import annotations

import copy
import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

_OPERATORS = {
    getattr(operator, f"__i{name}__"): getattr(operator, f"__{name}__")
    for name in (
        "add",
        "sub",
        "mul",
        "truediv",
        "floordiv",
        "mod",
        "pow",
        "matmul",
        "and",
        "or",
        "xor",
        "lshift",
        "rshift",
    )
}
_RANDOM = ("normal", "uniform", "random", "bernoulli", "exponential", "cauchy", "geometric")


def leave_input_alone(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Rewrite a call so that it changes nothing; False where no such operation is known."""
    if node.op == "call_module":
        return _copy_module(graph, node)
    if node.op == "call_function" and node.target in _OPERATORS:
        node.target = _OPERATORS[node.target]
        return True
    if _switch_off_argument(node):
        return True
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    if not name.endswith("_") or name.startswith("_") or name[:-1] in _RANDOM:
        return False
    return _rename(node, name[:-1])


def _copy_module(graph: fx.GraphModule, node: fx.Node) -> bool:
    """The graph's own copy of a module, with the same parameters, that leaves its input alone.

    The network keeps its module as it is: there it may be the change that matters.
    """
    module = graph.get_submodule(str(node.target))
    if not getattr(module, "inplace", False):
        return hasattr(module, "inplace")  # called before, and copied then
    parent, _, name = str(node.target).rpartition(".")
    new = copy.copy(module)
    new.inplace = False
    setattr(graph.get_submodule(parent), name, new)
    return True


def _switch_off_argument(node: fx.Node) -> bool:
    """`inplace=True` of a function, by name or by position."""
    if node.kwargs.get("inplace") is True:
        node.kwargs = {**node.kwargs, "inplace": False}
        return True
    code = getattr(node.target, "__code__", None)
    names = code.co_varnames[: code.co_argcount] if code else ()
    position = names.index("inplace") if "inplace" in names else len(node.args)
    if position >= len(node.args) or node.args[position] is not True:
        return False
    node.update_arg(position, False)
    return True


def _rename(node: fx.Node, name: str) -> bool:
    """`relu_` → `relu`, of a method or a function; what fills a tensor gives a new one."""
    if name == "zero":
        _call(node, torch.zeros_like, node.args[:1])
    elif name == "fill":
        _call(node, torch.full_like, node.args[:2])
        return not isinstance(node.args[1], fx.Node)
    elif name == "copy":
        _call(node, "expand_as", (node.args[1], node.args[0]))
    elif node.op == "call_method":
        node.target = name
        return hasattr(Tensor, name)
    else:
        function = getattr(F, name, None) or getattr(torch, name, None)
        node.target = function or node.target
        return function is not None
    return True


def _call(node: fx.Node, target: Any, args: tuple[Any, ...]) -> None:
    node.op = "call_method" if isinstance(target, str) else "call_function"
    node.target, node.args, node.kwargs = target, args, {}


def switch_off_modules(graph: fx.GraphModule) -> None:
    """Modules of a functional graph that could still write into their input stop doing so.

    An in-place operation whose tensor nobody reads again changes nothing today; a grid or a tap
    that comes in front of it tomorrow would read what it has written.
    """
    for node in graph.graph.nodes:
        if node.op == "call_module":
            _copy_module(graph, node)
