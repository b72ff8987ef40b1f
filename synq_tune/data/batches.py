"""How many images a network is asked about at once, where nobody says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

MOST_IMAGES = 256
_CPU_PIXELS = MOST_IMAGES * 64 * 64
"""256 images of 224 px take gigabytes, and what a layer makes of them leaves a CPU's caches."""


def batch_size(height: int, width: int, device: torch.device | str = "cpu") -> int:
    """Images of this size in one forward pass without gradients, 1 to `MOST_IMAGES`."""
    if torch.device(device).type != "cpu":
        return MOST_IMAGES
    return max(1, min(MOST_IMAGES, _CPU_PIXELS // (height * width)))


@dataclass(frozen=True)
class ImagePart:
    """Some of the images of a tensor, and what makes a network's input of them."""

    images: Tensor
    """(N, C, H, W), of any type."""
    rows: Tensor | None
    """(n,) which of them; None = all."""
    prepare: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return len(self.images) if self.rows is None else len(self.rows)

    def batches(self) -> Iterator[Tensor]:
        """Inputs (n, C, H, W), at most `MOST_IMAGES` at a time."""
        rows = torch.arange(len(self.images)) if self.rows is None else self.rows
        yield from (self.prepare(self.images[some]) for some in rows.split(MOST_IMAGES))


@dataclass(frozen=True)
class ImageBatches:
    """Images of several tensors, one batch at a time: as floats, ImageNet's validation images take
    30 GB."""

    parts: tuple[ImagePart, ...]

    def __len__(self) -> int:
        """Number of images."""
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[Tensor]:
        for part in self.parts:
            yield from part.batches()
