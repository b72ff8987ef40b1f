"""Labelled images held in memory, the common form of every evaluation set."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LabelledImages:
    """N real images with their classes; used to measure and to choose, never to train."""

    images: Tensor
    """(N, C, H, W) uint8, resized and cropped to the teacher's input, not normalised."""
    labels: Tensor
    """(N,) int64 class indices."""
    class_names: tuple[str, ...] | None = None
    """Names in label order, where the source has any."""

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor) -> LabelledImages:
        """The images at `indices` (M,), in that order."""
        index = torch.as_tensor(indices, dtype=torch.int64)
        return LabelledImages(self.images[index], self.labels[index], self.class_names)
