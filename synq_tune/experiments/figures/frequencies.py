"""Which frequencies images consist of (SynQ, Figures 1, 5, 9 and 10)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synq_tune.experiments.figures.material import Material
from synq_tune.experiments.figures.shown import square
from synq_tune.notes import counted
from synq_tune.report.paper.plots import Curves, Line, Spectrum

Drawn = tuple[list[dict[str, Any]], list[Any]]
"""The rows behind a figure, and its plots."""
_TINY = 1e-8
"""Below every amplitude that float32 can tell from rounding."""


def log_spectrum(images: Tensor) -> Tensor:
    """log10 |F(x)|, averaged over channels: (N, H, W), zero frequency at (H // 2, W // 2).

    Args:
        images: (N, C, H, W), normalised.
    """
    magnitude = torch.fft.fft2(images.float(), norm="ortho").abs().mean(1)
    return torch.fft.fftshift(magnitude, dim=(1, 2)).clamp_min(_TINY).log10()


def radial(spectrum: Tensor) -> Tensor:
    """Mean over the bins at each distance from the zero frequency, rounded: (N, R).

    Distances go from 0 to the last whole circle, as in the paper: 15 at 32 pixels.

    Args:
        spectrum: (N, H, W), zero frequency at (H // 2, W // 2).
    """
    height, width = spectrum.shape[1:]
    rows = (torch.arange(height) - height // 2).square()
    columns = (torch.arange(width) - width // 2).square()
    distance = (rows[:, None] + columns[None, :]).sqrt().round().long().flatten()
    count = (min(height, width) + 1) // 2
    rings = [spectrum.flatten(1)[:, distance == at].mean(1) for at in range(count)]
    return torch.stack(rings, 1)


def amplitude_rows(images: Tensor) -> list[dict[str, float]]:
    """A row a distance: mean and standard deviation of log10 amplitude over the images."""
    values = radial(log_spectrum(images))
    spread = values.std(0) if len(values) > 1 else torch.zeros(values.shape[1])
    return [
        {"frequency": at, "log10_amplitude": float(mean), "log10_std": float(std)}
        for at, (mean, std) in enumerate(zip(values.mean(0), spread, strict=True))
    ]


def draw_amplitude(found: Iterable[Material], parts: tuple[str, ...]) -> Drawn:
    """A plot a row and column: amplitude by distance, a curve for each part of the images."""
    rows, plots = [], []
    for material in found:
        lines = []
        for part in parts:
            images = material.images(part)
            mine = amplitude_rows(images)
            rows += [{**material.about(part), "images": len(images), **row} for row in mine]
            lines.append(_line(f"{material.named(part)} ({len(images)})", mine))
        title = f"{material.row}, {material.column}"
        plots.append(Curves(title, "frequency (bins)", "log10 amplitude", lines))
    return rows, plots


def _line(name: str, rows: list[dict[str, float]]) -> Line:
    keys = ("frequency", "log10_amplitude", "log10_std")
    x, y, half = ([row[key] for row in rows] for key in keys)
    return Line(name, x, y, half)


def draw_spectrum(found: Iterable[Material], parts: tuple[str, ...]) -> Drawn:
    """A few images and the mean spectrum of each part; spectra of a row have the same colours."""
    rows, plots = [], []
    for material in found:
        means = {part: log_spectrum(material.images(part)).mean(0).numpy() for part in parts}
        limits = (min(map(np.min, means.values())), max(map(np.max, means.values())))
        for part, mean in means.items():
            count = len(material.images(part))
            numbers = {"images": count, "log10_magnitude": _rounded(mean)}
            rows.append({**material.about(part), **numbers})
            plots.append(square(material, part))
            title = f"mean of {counted(count, 'image')}"
            plots.append(Spectrum(title, mean, (float(limits[0]), float(limits[1]))))
    return rows, plots


def _rounded(values: np.ndarray) -> list[list[float]]:
    return [[round(float(value), 3) for value in line] for line in values]
