"""Saliency maps over the images that they are of."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib import colormaps
from torch.nn.functional import interpolate

_SHARE = 0.55
"""Of the map in what is shown; the rest is the image, in grey."""
_COLORS = "viridis"  # colour-blind readers see its order


def overlaid(images: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) in [0, 1].

    Args:
        images: (N, H, W, 3) in [0, 1].
        maps: (N, h, w) in [0, 1], enlarged to the images' size.
    """
    wide = interpolate(torch.from_numpy(maps)[:, None], images.shape[1:3], mode="bilinear")[:, 0]
    colored = colormaps[_COLORS](wide.numpy())[..., :3]
    return _SHARE * colored + (1 - _SHARE) * images.mean(3, keepdims=True)
