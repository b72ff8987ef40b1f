"""Which tensors of a vision transformer get a grid.

    tensor                                        vit_minmax              vit_lsq
    input image                                   yes                     float
    patch embedding's output, its LayerNorm's     yes                     where a layer reads it
    class token joined, positions, their sum      yes                     float
    LayerNorm's output                            yes                     yes: layers read it
    q, k, v                                       one grid for all three  one grid each
    attention scores, with their bias table       yes                     float
    softmax's output                              float                   yes: read by the product
    attention · value                             yes                     yes: read by the projection
    projection's and MLP's output, residual sums  yes                     float
    fc1's output before GELU                      float                   float
    GELU's output                                 yes                     yes: read by fc2
    what the classifier reads                     yes                     yes
    logits                                        yes                     float
    weights of every Conv2d and Linear            yes                     yes
    biases, LayerNorm inside, attention masks     float                   float

`vit_minmax` is PSAQ-ViT's list; `vit_lsq` puts a grid in front of everything that multiplies, and
leaves the stream between the blocks in float.
"""

from __future__ import annotations

import operator

import torch
import torch.nn.functional as F
from torch import fx, nn

from synq_tune.errors import InputError
from synq_tune.graph.activations import is_known_activation
from synq_tune.graph.attention import is_product, open_attention, operands
from synq_tune.graph.branches import Branch, give_branch, past_identities, readers_of
from synq_tune.graph.nodes import module_of, operation
from synq_tune.graph.operations import is_float_map, is_fused, is_passthrough, is_sum, only_user

_LAYERS = (nn.Conv2d, nn.Linear)
_NORMS = (nn.LayerNorm, nn.modules.batchnorm._BatchNorm)
_POOLS = (nn.AdaptiveAvgPool2d, nn.AvgPool2d)
_POOL_CALLS = (torch.mean, F.adaptive_avg_pool2d, F.avg_pool2d, "mean")
_JOINS = (torch.cat, torch.concat)
_SELECTS = (operator.getitem, torch.chunk, torch.split, torch.unbind, "chunk", "split", "unbind")
"""Moves whose results are parts of what they read: each part may have a grid of its own."""


def prepare_transformer(graph: fx.GraphModule) -> None:
    """Write attention out, in place.

    Raises:
        InputError: a layer has weights that no grid exists for.
    """
    for node in graph.graph.nodes:
        _refuse_unsupported(graph, node)
    open_attention(graph)


def prepare_branches(graph: fx.GraphModule) -> None:
    """`prepare_transformer`, and ports where layers and others read one tensor."""
    prepare_transformer(graph)
    consumers = [n for n in graph.graph.nodes if _multiplies(graph, n)]
    for consumer in consumers:
        for operand in _read_by(consumer):
            _give_port(graph, operand)
    graph.recompile()


def _refuse_unsupported(graph: fx.GraphModule, node: fx.Node) -> None:
    module = module_of(graph, node)
    if module is None or isinstance(module, (*_LAYERS, *_NORMS)):
        return
    weights = [n for n, p in module.named_parameters() if p.dim() > 1]
    if weights:
        raise InputError(
            "`layers with weights are Conv2d or Linear` must hold for a vit quantizer, but got "
            f"{type(module).__name__} at {node.target} with {weights[0]}."
        )


def _multiplies(graph: fx.GraphModule, node: fx.Node) -> bool:
    return isinstance(module_of(graph, node), _LAYERS) or is_product(node)


def _read_by(consumer: fx.Node) -> list[fx.Node]:
    return operands(consumer)[:1] if consumer.op == "call_module" else operands(consumer)


def multiplied_tensors(graph: fx.GraphModule) -> list[fx.Node]:
    """Behind what every layer and both sides of every product read, except the image and
    parameters."""
    consumers = [n for n in graph.graph.nodes if _multiplies(graph, n)]
    sources = {_source(graph, o) for consumer in consumers for o in _read_by(consumer)}
    return [
        n for n in graph.graph.nodes if n in sources and n.op not in ("placeholder", "get_attr")
    ]


def _source(graph: fx.GraphModule, node: fx.Node) -> fx.Node:
    """The node whose values `node` only passes on, as long as nothing else reads them."""
    node = past_identities(graph, node)
    while _is_passed_on(graph, node):
        before = past_identities(graph, node.args[0])
        if len(readers_of(graph, node)) != 1 or len(readers_of(graph, before)) != 1:
            break
        node = before
    return node


def _is_passed_on(graph: fx.GraphModule, node: fx.Node) -> bool:
    if type(module_of(graph, node)) is Branch or operation(node) in _SELECTS:
        return False
    return is_passthrough(graph, node) and isinstance(node.args[0], fx.Node)


def _give_port(graph: fx.GraphModule, operand: fx.Node) -> None:
    source = _source(graph, operand)
    readers = readers_of(graph, source)
    layers = [r for r in readers if _multiplies(graph, r)]
    if not layers or len(layers) == len(readers) or source.op in ("placeholder", "get_attr"):
        return
    give_branch(graph, source, layers)


def psaq_tensors(graph: fx.GraphModule) -> list[fx.Node]:
    """PSAQ-ViT's list: all but softmax, what only a GELU reads, scaling, and masked scores."""
    found = [_token_of(graph, node) for node in graph.graph.nodes if _is_listed(graph, node)]
    found += [p for node in graph.graph.nodes for p in _added_parameters(graph, node)]
    chosen = set(found)
    return [node for node in graph.graph.nodes if node in chosen]


def _is_listed(graph: fx.GraphModule, node: fx.Node) -> bool:
    if not is_float_map(node) or is_fused(graph, node):
        return False
    user = only_user(graph, node)
    if user is not None and is_known_activation(graph, user):
        return False
    module = module_of(graph, node)
    return (
        node.op == "placeholder"
        or isinstance(module, (*_LAYERS, *_NORMS, *_POOLS))
        or is_known_activation(graph, node)
        or is_product(node)
        or operation(node) in (*_POOL_CALLS, *_JOINS, F.layer_norm)
        or (is_sum(node) and not _adds_constant(graph, node))
    )


def _adds_constant(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a sum adds a number or a buffer, as masks are."""
    return any(
        not isinstance(a, fx.Node) or a.op == "get_attr" and not _is_parameter(graph, a)
        for a in node.args[:2]
    )


def _is_parameter(graph: fx.GraphModule, node: fx.Node) -> bool:
    parent, _, name = str(node.target).rpartition(".")
    return isinstance(getattr(graph.get_submodule(parent), name), nn.Parameter)


def _added_parameters(graph: fx.GraphModule, node: fx.Node) -> list[fx.Node]:
    """Parameters that a sum adds, such as positions and tables of attention biases."""
    found = []
    for a in node.args[:2] if is_sum(node) else ():
        while isinstance(a, fx.Node) and a.op != "get_attr" and is_passthrough(graph, a):
            a = a.args[0]
        if isinstance(a, fx.Node) and a.op == "get_attr" and _is_parameter(graph, a):
            found.append(a)
    return found


def _token_of(graph: fx.GraphModule, node: fx.Node) -> fx.Node:
    """Behind the final LayerNorm, the one token that is read of it."""
    user = only_user(graph, node)
    is_norm = isinstance(module_of(graph, node), nn.LayerNorm)
    return user if is_norm and user is not None and user.target is operator.getitem else node
