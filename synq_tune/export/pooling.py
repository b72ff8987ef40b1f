"""Global average pooling as one operation, which integer runtimes have a kernel for.

Networks write it as a pooling module, a function or a mean, and torch's exporter makes a ReduceMean
of each, which runtimes compute in float.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from synq_tune.graph.nodes import insert_after, module_of
from synq_tune.quantization.frozen import FrozenActivation
from synq_tune.quantization.student import ACTIVATION_PREFIX

_MEANS = ("mean", torch.mean)


class GlobalAveragePool(nn.Module):
    """(N, C, H, W) → (N, C, 1, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((-1, -2), keepdim=True)


def unify_global_pools(frozen: fx.GraphModule) -> None:
    """Put a GlobalAveragePool, in place, wherever the network averages over H and W.

    One that drops the two axes is followed by its grid, if it has one, and by a Flatten.
    """
    for node in list(frozen.graph.nodes):
        keepdim = _keeps_axes(frozen, node)
        if keepdim is None:
            continue
        name = f"{node.name}_pool"
        frozen.add_submodule(name, GlobalAveragePool())
        with frozen.graph.inserting_after(node):
            pool = frozen.graph.call_module(name, (node.args[0],))
        pool.meta["shape"] = (*node.args[0].meta["shape"][:2], 1, 1)
        node.replace_all_uses_with(pool)
        frozen.graph.erase_node(node)
        if not keepdim:
            _flatten(frozen, pool)
    frozen.delete_all_unused_submodules()
    frozen.recompile()


def _flatten(frozen: fx.GraphModule, pool: fx.Node) -> None:
    """Drop the axes behind the pool; a grid keeps its name and place, behind the Flatten."""
    users = list(pool.users)
    grid = module_of(frozen, users[0]) if len(users) == 1 else None
    last = pool
    if isinstance(grid, FrozenActivation):
        last = insert_after(frozen, pool, ACTIVATION_PREFIX + pool.name, copy.deepcopy(grid))
    flat = insert_after(frozen, last, f"{pool.name}_flatten", nn.Flatten(1))
    flat.meta["shape"] = pool.meta["shape"][:2]


def _keeps_axes(frozen: fx.GraphModule, node: fx.Node) -> bool | None:
    """Whether a global average pooling keeps H and W as axes of size 1; None: the node is none."""
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node) or len(source.meta.get("shape") or ()) != 4:
        return None
    module = module_of(frozen, node)
    if module is not None:
        is_pool = type(module) is nn.AdaptiveAvgPool2d and _is_one(module.output_size)
        return True if is_pool else None
    if node.target is F.adaptive_avg_pool2d:
        return True if _is_one(_argument(node, 1, "output_size")) else None
    if node.op in ("call_function", "call_method") and node.target in _MEANS:
        axes = _argument(node, 1, "dim")
        is_pool = isinstance(axes, (tuple, list)) and {a % 4 for a in axes} == {2, 3}
        return bool(_argument(node, 2, "keepdim")) if is_pool else None
    return None


def _is_one(size: Any) -> bool:
    return size == 1 or (isinstance(size, (tuple, list)) and tuple(size) == (1, 1))


def _argument(node: fx.Node, position: int, name: str) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name)
