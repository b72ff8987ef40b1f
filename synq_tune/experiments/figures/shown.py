"""The synthetic images themselves, before and after the filter (SynQ, Figure 12)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import Tensor

from synq_tune.experiments.figures.material import REAL, Material
from synq_tune.report.paper.plots import Pictures
from synq_tune.views.low_pass import energy_kept

SIDE = 4
"""Images beside and below each other."""
NUM_SHOWN = SIDE * SIDE


def pixels_of(material: Material, part: str, count: int = NUM_SHOWN) -> np.ndarray:
    """(N, H, W, 3) in [0, 1]; grey where the network takes other than three channels."""
    images: Tensor = material.images(part, count)
    shown = material.ground.teacher.preprocessing.denormalize(images).clamp(0, 1)
    shown = shown if shown.shape[1] == 3 else shown.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    return shown.permute(0, 2, 3, 1).numpy()


def square(material: Material, part: str) -> Pictures:
    """The first images of a part."""
    pixels = pixels_of(material, part)
    lines = {" " * at: pixels[at : at + SIDE] for at in range(0, len(pixels) - SIDE + 1, SIDE)}
    whose = "" if part == REAL else f"{material.row}, "
    return Pictures(f"{whose}{material.named(part)}, {material.column}", lines)


def draw_images(
    found: Iterable[Material], parts: tuple[str, ...]
) -> tuple[list[dict[str, Any]], list[Pictures]]:
    """Images of each row and column, a square a part; and the share of energy that the filter keeps."""
    rows, plots = [], []
    for material in found:
        plots += [square(material, part) for part in parts]
        images, d0 = material.images("synthetic", NUM_SHOWN), material.spec.finetune.d0
        for number, image in enumerate(images):
            about = material.about("filtered")
            label = material.dataset.train_labels[number].tolist()
            kept = energy_kept(image[None], d0)
            rows.append({**about, "image": number, "label": label, "energy_kept": kept})
    return rows, plots
