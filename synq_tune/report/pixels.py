"""Images as small files for a page."""

from __future__ import annotations

import io

import torch
from PIL import Image
from torch import Tensor

from synq_tune.models.preprocessing import Preprocessing
from synq_tune.report.blocks import Picture

LARGEST = 112
"""Pixels: larger images are reduced."""
_SHOWN = 96
"""Pixels to which small ones are enlarged, by a whole number."""


def picture(image: Tensor, preprocessing: Preprocessing, says: str, caption: str = "") -> Picture:
    """A private picture of one normalised image (C, H, W).

    Grey and RGB are shown as they are, other numbers of channels as their mean.
    """
    pixels = preprocessing.denormalize(image[None].float().cpu())[0].clamp(0, 1)
    return picture_of(pixels, says, caption)


def picture_of(pixels: Tensor, says: str, caption: str = "") -> Picture:
    """A private picture of pixels (C, H, W) in [0, 1]."""
    pixels = pixels if len(pixels) in (1, 3) else pixels.mean(0, keepdim=True)
    array = (pixels * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    shown = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    is_small = max(shown.size) < _SHOWN
    shown.thumbnail((LARGEST, LARGEST))
    data, media = _encoded(shown, is_small)
    width = shown.width * max(1, _SHOWN // max(shown.size)) if is_small else shown.width
    return Picture(data, media, says, caption, width, is_private=True, is_pixelated=is_small)


def _encoded(shown: Image.Image, is_small: bool) -> tuple[bytes, str]:
    """Small ones exactly, larger ones in a tenth of the bytes."""
    buffer = io.BytesIO()
    if is_small:
        shown.save(buffer, "PNG", optimize=True)
        return buffer.getvalue(), "image/png"
    shown.save(buffer, "JPEG", quality=82)
    return buffer.getvalue(), "image/jpeg"
