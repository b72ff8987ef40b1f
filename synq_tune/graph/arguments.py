"""Tensors in the place their operation has for them: `F.relu(input=x)` becomes `F.relu(x)`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.fx.operator_schemas import get_signature_for_torch_op


def put_in_place(root: nn.Module, graph: fx.Graph) -> None:
    """Rewrite, in place, every call that names the tensors it reads; whatever reads a graph then
    finds a node's input as its first argument. Names and values of other arguments stay."""
    for node in graph.nodes:
        if any(isinstance(a, fx.Node) for a in _flat(node.kwargs)):
            _rebind(root, node)


def _rebind(root: nn.Module, node: fx.Node) -> None:
    for signature in _signatures(root, node):
        try:
            bound = signature.bind(*node.args, **node.kwargs)
        except TypeError:
            continue
        args = _leading(signature, bound.arguments, len(node.args))
        if args is not None:
            left = list(signature.parameters)[len(args) :]
            node.kwargs = {k: v for k, v in node.kwargs.items() if k in left}
            node.args = args
        return


def _leading(
    signature: inspect.Signature, given: dict[str, Any], at_least: int
) -> tuple[Any, ...] | None:
    """Arguments up to the last that is a tensor; None where one before it has no value."""
    names = [
        name
        for name, parameter in signature.parameters.items()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if any(p.kind is p.VAR_POSITIONAL for p in signature.parameters.values()):
        return None
    tensors = [i for i, n in enumerate(names) if any(_is_node(a) for a in _flat(given.get(n)))]
    wanted = names[: max(at_least, max(tensors, default=-1) + 1)]
    values = [given.get(n, signature.parameters[n].default) for n in wanted]
    return None if inspect.Parameter.empty in values else tuple(values)


def _signatures(root: nn.Module, node: fx.Node) -> list[inspect.Signature]:
    if node.op == "call_module":
        return [inspect.signature(root.get_submodule(str(node.target)).forward)]
    if node.op == "call_method":
        return get_signature_for_torch_op(getattr(torch, str(node.target), None)) or []
    try:
        return [inspect.signature(node.target)]
    except (TypeError, ValueError):  # written in C
        return get_signature_for_torch_op(node.target) or []


def _is_node(value: Any) -> bool:
    return isinstance(value, fx.Node)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from _flat(part)
    else:
        yield value
