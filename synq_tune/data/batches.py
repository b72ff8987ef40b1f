"""How many images a network is asked about at once, where nobody says."""

from __future__ import annotations

import torch

MOST_IMAGES = 256
_CPU_PIXELS = MOST_IMAGES * 64 * 64
"""256 images of 224 px take gigabytes, and what a layer makes of them leaves a CPU's caches."""


def batch_size(height: int, width: int, device: torch.device | str = "cpu") -> int:
    """Images of this size in one forward pass without gradients, 1 to `MOST_IMAGES`."""
    if torch.device(device).type != "cpu":
        return MOST_IMAGES
    return max(1, min(MOST_IMAGES, _CPU_PIXELS // (height * width)))
