"""Random crops and flips of a whole batch at once.

A crop without rotation is separable: one small matrix of bilinear weights per image for its rows
and one for its columns. Unlike `grid_sample` this is exact for the whole image, and its gradient
on a GPU does not depend on the order of atomic additions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_ASPECT = 4 / 3


def random_boxes(count: int, scale: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Crop boxes whose share of the image's area is uniform in `scale`.

    The aspect is log-uniform in [3/4, 4/3] of the image's own, narrowed for large areas so that
    the box fits; area 1 is the whole image.

    Args:
        count: number of boxes.
        scale: smallest and largest area, in (0, 1].
        generator: on the CPU.

    Returns:
        (count, 4) float32 on the CPU: top, left, height, width as fractions of the image.
    """
    low, high = scale
    if not 0 < low <= high <= 1:
        raise ValueError(f"`0 < low <= high <= 1` must hold, but got scale={scale}.")
    u_area, u_aspect, u_top, u_left = torch.rand(4, count, generator=generator)
    area = low + (high - low) * u_area
    limit = (-area.log()).clamp_max(math.log(_ASPECT))
    aspect = ((2 * u_aspect - 1) * limit).exp()
    height = (area / aspect).sqrt().clamp_max(1.0)
    width = (area * aspect).sqrt().clamp_max(1.0)
    return torch.stack((u_top * (1 - height), u_left * (1 - width), height, width), dim=1)


def crop_and_flip(images: Tensor, boxes: Tensor, flips: Tensor) -> Tensor:
    """Cut each image's box out and resize it (bilinear) to the image's size.

    Args:
        images: (N, C, H, W) float, differentiated through.
        boxes: (N, 4): top, left, height, width as fractions; (0, 0, 1, 1) changes nothing.
        flips: (N,) bool, mirrors left and right after the crop.

    Returns:
        (N, C, H, W).
    """
    boxes, flips = boxes.to(images.device), flips.to(images.device)
    top, left, height, width = boxes.unbind(1)
    rows = _weights(top, height, torch.zeros_like(flips), images.shape[2])
    columns = _weights(left, width, flips, images.shape[3])
    return rows.to(images.dtype) @ images @ columns.to(images.dtype).mT


def _weights(start: Tensor, extent: Tensor, reverse: Tensor, size: int) -> Tensor:
    """Bilinear weights of `size` source pixels for each target pixel, (N, 1, size, size)."""
    index = torch.arange(size, dtype=torch.float32, device=start.device)
    # Centres of pixels map onto each other; beyond the border the outermost pixel repeats.
    position = start[:, None] * size + (index + 0.5) * extent[:, None] - 0.5
    position = torch.where(reverse[:, None], position.flip(1), position).clamp(0, size - 1)
    return (1 - (position[:, :, None] - index).abs()).clamp_min(0)[:, None]
