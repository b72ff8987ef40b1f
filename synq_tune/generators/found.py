"""The generators that AutoReCon found (ARC, Zhu et al., IJCAI 2021), from their codes.

Three cells double the maps one after the other. In each, two nodes are enlarged copies of what
comes in, and two more are sums of operations on those before; the last one goes on. From the second
cell on, both sums also read enlarged nodes of the cell before. A third of the latent enters in front
of each cell. The search that found the codes was never released.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from synq_tune.config.generator_source import GeneratorSourceSettings
from synq_tune.generators.draws import Draw
from synq_tune.generators.latents import Latents, Norm
from synq_tune.generators.network import LARGE_EPS, SLOPE, Shape, doubled, finished, seed_size

_WIDTH, _CELLS = 64, 3
_GROWTH = 2**_CELLS
_MODES = ("nearest", "bilinear")
_KERNELS = {2: (1, 1), 3: (3, 1), 4: (5, 1), 5: (3, 2), 6: (5, 2)}
"""Number of an operation → kernel size and dilation; 0 is none and 1 hands on what it reads."""
_INTO_THIRD, _INTO_FOURTH = 2, 3
"""How many of a cell's five operations lead into each of its two sums."""


class FoundGenerator(nn.Module):
    """Latents and classes → images, normalised; every norm is of the classes."""

    def __init__(
        self,
        config: GeneratorSourceSettings,
        latent: int,
        num_classes: int,
        shape: Shape,
        rows: Tensor | None = None,
    ) -> None:
        """Draw the weights as torch does; arguments as of `Generator`, sides are divided by eight."""
        super().__init__()
        ups, operations, crosses = map(_numbers, config.generator_code.split("|"))
        height, width = seed_size(shape, _GROWTH)
        self.size = shape[1:]
        self.seed_sizes = [(height * 2**cell, width * 2**cell) for cell in range(_CELLS)]
        self.latents = Latents(config.generator_conditioning, num_classes, latent, rows)
        self.parts = [latent // 3, latent // 3, latent - 2 * (latent // 3)]
        self.linears = nn.ModuleList(
            nn.Linear(part, _WIDTH * math.prod(size))
            for part, size in zip(self.parts, self.seed_sizes, strict=True)
        )
        self.cells = nn.ModuleList(
            Cell(ups[2 * i : 2 * i + 2], operations[5 * i : 5 * i + 5], cross, num_classes)
            for i, cross in enumerate(([0] * 6, crosses[:6], crosses[6:]))
        )
        self.norm = Norm(_WIDTH, LARGE_EPS, num_classes)
        self.last = nn.Conv2d(_WIDTH, shape[0], 3, padding=1)

    def forward(self, draw: Draw) -> Tensor:
        """Images (N, C, H, W) of a draw."""
        x, nodes = 0, []
        entries = zip(self.latents(draw).split(self.parts, 1), self.linears, strict=True)
        for (part, linear), size, cell in zip(entries, self.seed_sizes, self.cells, strict=True):
            x, nodes = cell(x + linear(part).unflatten(1, (_WIDTH, *size)), nodes, draw)
        return finished(self.last(F.leaky_relu(self.norm(x, draw), SLOPE)), self.size)


class Cell(nn.Module):
    """Four nodes, the last of which goes on."""

    def __init__(
        self, ups: list[int], operations: list[int], crosses: list[int], num_classes: int
    ) -> None:
        """The numbers of its edges: two, five and six."""
        super().__init__()
        self.ups = nn.ModuleList(Up(_MODES[number], num_classes) for number in ups)
        self.operations = nn.ModuleList(_operation(number, num_classes) for number in operations)
        # Nearest and bilinear have the numbers 1 and 2 here: 0 is none.
        made = (Up(_MODES[n - 1], num_classes) if n else Nothing() for n in crosses)
        self.crosses = nn.ModuleList(made)

    def forward(self, x: Tensor, before: list[Tensor], draw: Draw) -> tuple[Tensor, list[Tensor]]:
        """What goes on, and the first three nodes, which the next cell reads.

        Args:
            x: (N, C, H, W).
            before: the first three nodes of the cell before, (N, C, H, W) each; none of the first.
            draw: says the classes.
        """
        nodes = [up(x, draw) for up in self.ups]
        ends = ((_INTO_THIRD, 0), (_INTO_FOURTH, 3))
        first = 0
        for count, cross in ends:
            edges = list(zip(self.operations[first : first + count], nodes, strict=True))
            edges += list(zip(self.crosses[cross : cross + 3], before, strict=False))
            nodes.append(_sum(edges, nodes[0], draw))
            first += count
        return nodes[3], nodes[:3]


def _sum(edges: list[tuple[nn.Module, Tensor]], like: Tensor, draw: Draw) -> Tensor:
    total = like.new_zeros(())
    for edge, node in edges:
        total = total + edge(node, draw)
    return total.expand_as(like)


class Convolved(nn.Module):
    """Conditional norm → leaky ReLU → convolution that keeps the size."""

    def __init__(self, kernel: int, dilation: int, num_classes: int) -> None:
        super().__init__()
        self.norm = Norm(_WIDTH, LARGE_EPS, num_classes)
        padding = dilation * (kernel - 1) // 2
        self.convolution = nn.Conv2d(_WIDTH, _WIDTH, kernel, 1, padding, dilation)

    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        """(N, C, H, W) → the same shape."""
        return self.convolution(F.leaky_relu(self.norm(x, draw), SLOPE))


class Up(nn.Module):
    """Twice as large, then as `Convolved` with one pixel."""

    def __init__(self, mode: str, num_classes: int) -> None:
        super().__init__()
        self.mode, self.convolved = mode, Convolved(1, 1, num_classes)

    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        """(N, C, H, W) → (N, C, 2 H, 2 W)."""
        return self.convolved(doubled(x, self.mode), draw)


class HandOn(nn.Module):
    """What it reads."""

    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        """(N, C, H, W) → the same."""
        return x


class Nothing(nn.Module):
    """No edge; the release has one with weights whose values are multiplied by zero."""

    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        """A zero, whatever it reads."""
        return x.new_zeros(())


def _operation(number: int, num_classes: int) -> nn.Module:
    if number in _KERNELS:
        return Convolved(*_KERNELS[number], num_classes)
    return HandOn() if number else Nothing()


def _numbers(code: str) -> list[int]:
    return [int(digit) for digit in code]
