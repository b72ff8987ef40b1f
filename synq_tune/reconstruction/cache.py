"""Tensors of all images, in memory up to a budget and on the disk above it."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

_SLICE = 256 * 2**20
"""Bytes of results that one pass over the images makes at a time, at most."""


class Cache:
    """A tensor (N, …) float32 that is written once, row by row, and read by rows."""

    def __init__(self, shape: tuple[int, ...], device: torch.device, in_memory: bool) -> None:
        """Make room for it; on the disk in a file without a name, which goes when it is closed."""
        self.device = device
        self.in_memory = in_memory
        if in_memory:
            self.tensor = torch.empty(shape, device=device)
        else:
            self._file = tempfile.TemporaryFile(prefix="synq_tune-")  # noqa: SIM115
            self.tensor = torch.from_numpy(np.memmap(self._file, np.float32, "w+", shape=shape))

    def __len__(self) -> int:
        return len(self.tensor)

    @property
    def num_bytes(self) -> int:
        """Of memory; 0 where it lies on the disk."""
        return self.tensor.numel() * 4 if self.in_memory else 0

    def rows(self, index: Tensor | slice) -> Tensor:
        """Rows (n, …) on the device."""
        return self.tensor[index].to(self.device)


class Caches:
    """Makes caches; those that are alive take at most a budget of memory."""

    def __init__(self, budget: float, device: torch.device) -> None:
        """Take a budget in GB of 10^9 bytes."""
        self.budget, self.device = budget * 1e9, device

    def of(self, batches: Iterator[Tensor], count: int, alive: list[Cache]) -> Cache:
        """A cache of `count` rows, filled with batches (n, …).

        Args:
            alive: other caches that take memory meanwhile.
        """
        first = next(batches)
        shape = (count, *first.shape[1:])
        used = sum({id(c): c.num_bytes for c in alive}.values())
        cache = Cache(shape, self.device, used + 4 * math.prod(shape) <= self.budget)
        begin = 0
        while first is not None:
            cache.tensor[begin : begin + len(first)] = first.to(cache.tensor.device)
            begin, first = begin + len(first), next(batches, None)
        return cache

    @torch.no_grad()
    def mapped(
        self, function: Callable[[Tensor], Tensor], cache: Cache, size: int, alive: list[Cache]
    ) -> Cache:
        """A cache of what a function gives for rows of another, `size` rows at a time."""
        starts = range(0, len(cache), size)
        batches = (function(cache.rows(slice(start, start + size))) for start in starts)
        return self.of(batches, len(cache), alive)
