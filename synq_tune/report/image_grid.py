"""A picture of synthetic images before and after the low-pass filter (SynQ, Eq. 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import pad

from synq_tune.store import atomic_path

DPI = 100
TITLE_HEIGHT = 34
"""Pixels above each block of images."""
MARGIN = 12
MIN_CELL, MAX_CELL = 64, 112
"""Pixels at which an image is shown: small ones are enlarged, large ones reduced."""


def save_image_grid(
    before: Tensor,
    after: Tensor,
    mean: Sequence[float] | Tensor,
    std: Sequence[float] | Tensor,
    path: Path,
    columns: int = 16,
    d0: float | None = None,
) -> None:
    """Write a PNG of the images, and below them the same images filtered.

    Args:
        before: (N, C, H, W), normalised; one or three channels (other counts show as their mean).
        after: the same images after the filter, same shape.
        mean: (C,), of the normalisation.
        std: (C,).
        path: of the PNG; written atomically.
        columns: images per row.
        d0: cut-off of the filter in frequency bins, for the title; None = no filter.

    Raises:
        ValueError: the shapes differ, or there is no image.
    """
    if before.ndim != 4 or len(before) == 0 or before.shape != after.shape:
        raise ValueError(
            "`before and after are (N, C, H, W) of one shape, N > 0` must hold, but got "
            f"before={tuple(before.shape)}, after={tuple(after.shape)}."
        )
    filtered = "no low-pass filter" if d0 is None else f"after the low-pass filter, D0 = {d0:g}"
    blocks = {
        "synthetic": _mosaic(_pixels(before, mean, std), columns),
        filtered: _mosaic(_pixels(after, mean, std), columns),
    }
    figure = _draw(blocks, scale=_scale(max(before.shape[2:])))
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def _pixels(
    images: Tensor, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor
) -> Tensor:
    """Undo the normalisation: (N, 1 or 3, H, W) in [0, 1]."""
    images = images.detach().float().cpu()
    mean, std = (torch.as_tensor(v, dtype=torch.float32).cpu()[:, None, None] for v in (mean, std))
    pixels = (images * std + mean).clamp(0, 1)
    return pixels if pixels.shape[1] in (1, 3) else pixels.mean(1, keepdim=True)


def _mosaic(pixels: Tensor, columns: int) -> np.ndarray:
    """(N, C, H, W) → (rows · (H + gap), columns · (W + gap), C), white between the images."""
    count, channels = pixels.shape[:2]
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    gap = max(1, max(pixels.shape[2:]) // 16)
    cells = pad(pixels, (0, gap, 0, gap), value=1.0)
    cells = pad(cells, (0, 0, 0, 0, 0, 0, 0, rows * columns - count), value=1.0)
    height, width = cells.shape[2:]
    grid = cells.reshape(rows, columns, channels, height, width).permute(0, 3, 1, 4, 2)
    return grid.reshape(rows * height, columns * width, channels).numpy()


def _scale(size: int) -> float:
    """Shown pixels per pixel; whole when enlarging, so that pixels stay square and equal."""
    return math.ceil(MIN_CELL / size) if size < MIN_CELL else min(1.0, MAX_CELL / size)


def _draw(blocks: dict[str, np.ndarray], scale: float) -> Figure:
    """One titled block above the other, each at `scale`."""
    sizes = [(scale * mosaic.shape[0], scale * mosaic.shape[1]) for mosaic in blocks.values()]
    width = max(max(w for _, w in sizes) + 2 * MARGIN, 360)
    height = sum(h + TITLE_HEIGHT for h, _ in sizes) + MARGIN
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    top = 0.0
    for (title, mosaic), (h, w) in zip(blocks.items(), sizes, strict=True):
        top += TITLE_HEIGHT
        place = (MARGIN / width, 1 - (top + h) / height, w / width, h / height)
        axes = figure.add_axes(place)
        axes.imshow(mosaic, cmap="gray", vmin=0, vmax=1, aspect="auto")
        axes.set_axis_off()
        axes.set_title(title, loc="left", fontsize=12)
        top += h
    return figure
