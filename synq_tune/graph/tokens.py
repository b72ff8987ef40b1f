"""Tokens as maps: which of a transformer's tokens are patches, and where in the image they lie."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from synq_tune.graph.attention import attention_outputs
from synq_tune.graph.nodes import module_of

BATCH = 2
"""Images that shapes in a graph's `meta` were traced with."""


@dataclass(frozen=True)
class TokenGrid:
    """How tokens (N, prefix + height · width, C), row by row, lie on a map (N, C, height,
    width)."""

    prefix: int
    """Class, distillation and register tokens, which come first."""
    height: int
    width: int

    def to_map(self, tokens: Tensor) -> Tensor:
        """Patch tokens as a map."""
        patches = tokens[:, self.prefix :].transpose(1, 2)
        return patches.unflatten(2, (self.height, self.width))

    def to_tokens(self, map_: Tensor, tokens: Tensor) -> Tensor:
        """The patches of a map behind the first of `tokens`."""
        return torch.cat((tokens[:, : self.prefix], map_.flatten(2).transpose(1, 2)), dim=1)


@dataclass(frozen=True)
class ChannelsLast:
    """Values (N, height, width, C), as Swin keeps them between its blocks."""

    def to_map(self, values: Tensor) -> Tensor:
        """(N, C, height, width)."""
        return values.permute(0, 3, 1, 2)

    def to_tokens(self, map_: Tensor, values: Tensor) -> Tensor:
        """Back to (N, height, width, C)."""
        return map_.permute(0, 2, 3, 1)


def patch_grid(graph: fx.GraphModule) -> tuple[int, int] | None:
    """Height and width of the embedding's map, in patches; None where the network is no
    transformer.

    A transformer here has attention and no convolution behind the first one.
    """
    nodes = list(graph.graph.nodes)
    attention = attention_outputs(graph)
    maps = [n for n in nodes if isinstance(module_of(graph, n), nn.Conv2d)]
    if not attention or not maps or nodes.index(maps[-1]) > nodes.index(attention[0]):
        return None
    return tuple(maps[-1].meta["shape"][2:])


def token_grid(count: int, grid: tuple[int, int]) -> TokenGrid | None:
    """The grid of `count` tokens: the embedding's, halved any number of times, behind few prefixes.

    None where no grid of more than one patch fits.
    """
    sizes = []
    height, width = grid
    while height * width > 1:
        sizes.append((height, width))
        height, width = -(-height // 2), -(-width // 2)
    fits = [TokenGrid(count - h * w, h, w) for h, w in sizes if h * w <= count]
    return min(fits, key=lambda found: found.prefix, default=None)


def layout_of(
    graph: fx.GraphModule, node: fx.Node, grid: tuple[int, int] | None
) -> TokenGrid | ChannelsLast | None:
    """How the values of a transformer's node lie on a map; None: they do not.

    Args:
        graph: traced.
        node: of it.
        grid: `patch_grid(graph)`.
    """
    shape = node.meta.get("shape")
    if grid is None or not shape or shape[0] != BATCH:
        return None
    if len(shape) == 3:
        return token_grid(shape[1], grid)
    is_convolved = isinstance(module_of(graph, node), (nn.Conv2d, nn.BatchNorm2d))
    is_last = len(shape) == 4 and not is_convolved and shape[1] * shape[2] > 1
    return ChannelsLast() if is_last else None
