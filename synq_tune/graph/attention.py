"""Attention as separate operations: what the two products of an attention read and give."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from synq_tune.errors import InputError
from synq_tune.graph.nodes import module_of, operation

PRODUCTS = (
    torch.matmul, operator.matmul, torch.bmm, torch.einsum, torch.functional.einsum, "matmul", "bmm",
)  # fmt: skip
_SOFTMAX = (F.softmax, torch.softmax, "softmax")
_FUSED = F.scaled_dot_product_attention
_ARGUMENTS = (
    "query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa",
)  # fmt: skip


def is_product(node: fx.Node) -> bool:
    """Whether the node multiplies two computed tensors as matrices."""
    if node.op not in ("call_function", "call_method") or node.target not in PRODUCTS:
        return False
    return len(operands(node)) == 2


def operands(node: fx.Node) -> list[fx.Node]:
    """The tensors a product reads, in order; parameters and constants are none."""
    nodes = [a for a in (*node.args, *node.kwargs.values()) if isinstance(a, fx.Node)]
    return [a for a in nodes if a.op != "get_attr"]


def attention_outputs(graph: fx.GraphModule) -> list[fx.Node]:
    """Nodes that give attention · value, (N, heads, T, d), in call order; fused or written out."""
    return [n for n in graph.graph.nodes if n.target is _FUSED or _weighs_values(graph, n)]


def _weighs_values(graph: fx.GraphModule, node: fx.Node) -> bool:
    return is_product(node) and _is_softmax(graph, operands(node)[0])


def _is_softmax(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node gives a softmax, dropout and identities passed over."""
    while isinstance(module_of(graph, node), (nn.Dropout, nn.Identity)) or node.target is F.dropout:
        node = node.args[0]
    return isinstance(module_of(graph, node), nn.Softmax) or operation(node) in _SOFTMAX


def open_attention(graph: fx.GraphModule) -> None:
    """Write every fused attention out, in place: softmax(q · scale · kᵀ + mask) · v.

    The nodes are named after the fused one, so that two traces of a network agree on them.

    Raises:
        InputError: an attention is causal, drops values or groups heads.
    """
    for node in [n for n in graph.graph.nodes if n.target is _FUSED]:
        _open(graph.graph, node)
    graph.recompile()


def _open(graph: fx.Graph, node: fx.Node) -> None:
    call: dict[str, Any] = {**dict(zip(_ARGUMENTS, node.args, strict=False)), **node.kwargs}
    _refuse(node, call)
    query, key, value = call["query"], call["key"], call["value"]
    batch, tokens = query.meta["shape"], key.meta["shape"]
    scale = call.get("scale") or 1 / math.sqrt(batch[-1])
    scores = (*batch[:-1], tokens[-2])
    with graph.inserting_before(node):
        scaled = _node(graph, node, "scaled", operator.mul, (query, scale), batch)
        shape = (*tokens[:-2], tokens[-1], tokens[-2])
        turned = _node(graph, node, "turned", torch.transpose, (key, -2, -1), shape)
        result = _node(graph, node, "scores", torch.matmul, (scaled, turned), scores)
        if call.get("attn_mask") is not None:
            args = (result, call["attn_mask"])
            result = _node(graph, node, "masked", operator.add, args, scores)
        result = _node(graph, node, "softmax", F.softmax, (result, -1), scores)
        args = (result, value)
        result = _node(graph, node, "mixed", torch.matmul, args, node.meta["shape"])
    node.replace_all_uses_with(result)
    graph.erase_node(node)


def _node(
    graph: fx.Graph, fused: fx.Node, suffix: str, function: Any, args: tuple, shape: tuple[int, ...]
) -> fx.Node:
    name = f"{fused.name}_{suffix}"
    node = graph.create_node("call_function", function, args, {}, name=name)
    node.meta["shape"] = tuple(shape)
    return node


def _refuse(node: fx.Node, call: dict[str, Any]) -> None:
    wrong = [k for k in ("dropout_p", "is_causal", "enable_gqa") if call.get(k)]
    if wrong:
        raise InputError(
            f"`attention is softmax(q · kᵀ + mask) · v` must hold, but got {wrong[0]}="
            f"{call[wrong[0]]} at {node.name}."
        )
