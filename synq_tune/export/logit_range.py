"""The range of the logits where a runtime wants a grid for them too, found without data."""

from __future__ import annotations

import torch
from torch import Tensor

from synq_tune.quantization.frozen import StandaloneModel

_NOISE = 8
_HEADROOM = 0.125
"""Share of the logits' range added at each end: images met later may have larger ones."""


@torch.no_grad()
def logit_range(model: StandaloneModel, images: Tensor | None) -> tuple[float, float]:
    """Smallest and largest logit on images (N, C, H, W) in [0, 1], with room at both ends.

    Args:
        model: frozen student with its normalisation.
        images: synthetic ones; None takes noise.
    """
    if images is None:
        chance = torch.Generator().manual_seed(0)
        images = torch.rand(_NOISE, *model.preprocessing.shape, generator=chance)
    logits = model(images.to(model.mean.device).float())
    low, high = float(logits.min()), float(logits.max())
    room = _HEADROOM * (high - low)
    return low - room, high + room
