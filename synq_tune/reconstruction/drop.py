"""Which single values stay exact in an update (QDrop)."""

from __future__ import annotations

import torch
from torch import Tensor

_LEVELS = 256


class ElementDrop:
    """Draws masks: each value is true with one probability, on its own.

    One random byte a value, so that the probability is a multiple of 1/256: drawing floats would
    cost as much as a convolution of few channels.
    """

    def __init__(self, probability: float, seed: int, device: torch.device) -> None:
        self.threshold = round(probability * _LEVELS)
        self.generator = torch.Generator(device).manual_seed(seed)

    def __call__(self, like: Tensor) -> Tensor:
        """A mask, bool, of the shape of `like`."""
        if self.threshold in (0, _LEVELS):
            return torch.full_like(like, self.threshold > 0, dtype=torch.bool)
        words = torch.empty(-(-like.numel() // 8), dtype=torch.int64, device=like.device)
        words.random_(-(2**63), None, generator=self.generator)
        values = words.view(torch.uint8)[: like.numel()] < self.threshold
        return values.view(like.shape)
