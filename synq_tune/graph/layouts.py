"""Which elements of a storage a tensor shows, and how two such views lie in each other."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Where a tensor's elements lie."""

    storage: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @classmethod
    def of(cls, x: Tensor) -> Layout:
        """The layout of a tensor; two tensors share memory only if they share `storage`."""
        where = x.untyped_storage()._cdata
        return cls(where, x.dtype, tuple(x.shape), tuple(x.stride()), x.storage_offset())

    def elements(self) -> Tensor:
        """Positions in the storage, (n,)."""
        places = torch.tensor([self.offset])
        for size, stride in zip(self.shape, self.stride, strict=True):
            places = (places[:, None] + torch.arange(size) * stride).flatten()
        return places

    def overlaps(self, other: Layout) -> bool:
        """Whether the two show a common element."""
        if self.storage != other.storage or not self._reaches(other):
            return False
        return self == other or bool(torch.isin(self.elements(), other.elements()).any())

    def _reaches(self, other: Layout) -> bool:
        return self.offset <= other.last and other.offset <= self.last

    @property
    def last(self) -> int:
        """The last position in the storage."""
        sizes = zip(self.shape, self.stride, strict=True)
        return self.offset + sum((size - 1) * stride for size, stride in sizes)

    def contains(self, other: Layout) -> bool:
        """Whether every element of the other is one of these."""
        return self.storage == other.storage and bool(
            torch.isin(other.elements(), self.elements()).all()
        )


@dataclass(frozen=True)
class Region:
    """A rectangle of a tensor: per axis (start, length), and the axes that its view has dropped."""

    bounds: tuple[tuple[int, int], ...]
    dropped: tuple[int, ...]


def region(whole: Layout, part: Layout) -> Region | None:
    """The rectangle of `whole` that `part` is; None where it is another shape, or has steps."""
    starts = _starts(whole, part.offset - whole.offset)
    missing = len(whole.shape) - len(part.shape)
    if starts is None or missing < 0 or whole.dtype != part.dtype:
        return None
    for dropped in itertools.combinations(range(len(whole.shape)), missing):
        kept = [d for d in range(len(whole.shape)) if d not in dropped]
        sizes = dict(zip(kept, part.shape, strict=True))
        strides = dict(zip(kept, part.stride, strict=True))
        fits = all(sizes[d] == 1 or strides[d] == whole.stride[d] for d in kept)
        bounds = tuple((starts[d], sizes.get(d, 1)) for d in range(len(whole.shape)))
        inside = all(s + n <= size for (s, n), size in zip(bounds, whole.shape, strict=True))
        if fits and inside:
            return Region(bounds, dropped)
    return None


def _starts(whole: Layout, offset: int) -> list[int] | None:
    starts = [0] * len(whole.shape)
    for d in sorted(range(len(starts)), key=lambda d: -whole.stride[d]):
        if whole.shape[d] > 1 and whole.stride[d] > 0:
            starts[d], offset = divmod(offset, whole.stride[d])
    return starts if offset == 0 and all(s >= 0 for s in starts) else None


def permutation(whole: Layout, part: Layout) -> tuple[int, ...] | None:
    """Axes by which `part` permuted is `whole`; None where it is not."""
    if len(whole.shape) != len(part.shape) or whole.offset != part.offset:
        return None
    for axes in itertools.permutations(range(len(part.shape))):
        shape = tuple(part.shape[a] for a in axes)
        strides = tuple(part.stride[a] for a in axes)
        if shape == whole.shape and all(
            size == 1 or own == other
            for size, own, other in zip(shape, strides, whole.stride, strict=True)
        ):
            return axes
    return None


def is_reshaped(whole: Layout, part: Layout) -> bool:
    """Whether both show the same run of elements in the same order."""
    return whole.offset == part.offset and torch.equal(whole.elements(), part.elements())
