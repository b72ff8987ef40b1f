"""The synthetic images: by class with the teacher's confidence, filtered, and how alike they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from synq_tune.data.synthetic import SyntheticDataset
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.report.blocks import Picture
from synq_tune.report.pixels import picture
from synq_tune.trial.evaluation import predict
from synq_tune.views.low_pass import energy_kept, low_pass

MOST_CLASSES, PER_CLASS = 20, 4
FILTERED, PAIRS = 6, 3
ALIKE = 0.95
"""Cosine of two images, each less its own mean, from which they are near-duplicates."""
_MOST_PIXELS = 1024 * 64 * 64
"""Pixels that the teacher is asked about at most: seconds on a processor."""
_COMPARED_SIDE = 16
_BINS = 20


@dataclass(frozen=True)
class ClassOfImages:
    """Images made for one class."""

    name: str
    count: int
    """Among those that the teacher was asked about."""
    confidence: float
    """The teacher's mean probability of the class on them, percent."""
    pictures: list[Picture]


@dataclass(frozen=True)
class Filtered:
    """A few images behind the low-pass filter."""

    d0: float | None
    """Cut-off in frequency bins; None: as they are."""
    energy: float
    """Percent of the energy around the mean that is left."""
    pictures: list[Picture]


@dataclass(frozen=True)
class Pair:
    """Two images that are alike."""

    cosine: float
    pictures: tuple[Picture, Picture]


@dataclass(frozen=True)
class Synthetic:
    """What there is to see of a synthetic dataset."""

    count: int
    """Images that the teacher was asked about: the first of the training part."""
    classes: list[ClassOfImages]
    num_classes: int
    """Of the teacher; only some are shown where there are many."""
    confidences: list[float]
    """Percent of the images in each of 20 equal bins of the teacher's confidence."""
    filtered: list[Filtered]
    duplicates: int
    """Images with another one that is alike."""
    pairs: list[Pair]
    """The most alike."""


def synthetic(
    teacher: LoadedTeacher, dataset: SyntheticDataset, d0s: Iterable[float | None]
) -> Synthetic:
    """Look at the training part of a dataset.

    Args:
        d0s: cut-offs of the low-pass filter to show.
    """
    pixels = dataset.images.shape[2] * dataset.images.shape[3]
    count = min(len(dataset.train_images), max(32, _MOST_PIXELS // pixels))
    images, labels = dataset.train_images[:count], dataset.train_labels[:count]
    device = next(teacher.graph.parameters()).device
    probabilities = predict(teacher, images, device).softmax(1)
    own = probabilities.gather(1, labels[:, None])[:, 0]
    nearest, partner = _nearest(images)
    return Synthetic(
        count,
        _by_class(teacher, images, labels, own),
        teacher.num_classes,
        (100 * torch.histc(own, _BINS, 0, 1) / count).tolist(),
        [_filtered(teacher, images[:FILTERED], d0) for d0 in dict.fromkeys((None, *d0s))],
        int((nearest > ALIKE).sum()),
        _pairs(teacher, images, nearest, partner),
    )


def class_name(teacher: LoadedTeacher, label: int) -> str:
    """Its name, else its number."""
    return f"class {label}" if teacher.class_names is None else teacher.class_names[label]


def _by_class(
    teacher: LoadedTeacher, images: Tensor, labels: Tensor, own: Tensor
) -> list[ClassOfImages]:
    present = labels.unique().tolist()
    shown = present[:: max(1, -(-len(present) // MOST_CLASSES))]
    return [_class(teacher, images, own, (labels == c).nonzero()[:, 0], c) for c in shown]


def _class(
    teacher: LoadedTeacher, images: Tensor, own: Tensor, rows: Tensor, label: int
) -> ClassOfImages:
    name = class_name(teacher, label)
    pictures = [
        picture(
            images[row],
            teacher.preprocessing,
            f"synthetic image {row} of {name}",
            f"{100 * float(own[row]):.0f} %",
        )
        for row in rows[:PER_CLASS].tolist()
    ]
    return ClassOfImages(name, len(rows), 100 * float(own[rows].mean()), pictures)


def _filtered(teacher: LoadedTeacher, images: Tensor, d0: float | None) -> Filtered:
    says = "synthetic image as it is" if d0 is None else f"the same image, D0 = {d0:g}"
    shown = [picture(image, teacher.preprocessing, says) for image in low_pass(images, d0)]
    return Filtered(d0, 100 * energy_kept(images, d0), shown)


def _nearest(images: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine of each image (N, C, H, W) and the one most like it, (N,), and which that is, (N,)."""
    side = [min(_COMPARED_SIDE, size) for size in images.shape[2:]]
    small = F.adaptive_avg_pool2d(images.float(), side).flatten(1)
    small = F.normalize(small - small.mean(1, keepdim=True), dim=1)
    cosines = small @ small.T
    best = cosines.fill_diagonal_(-1.0).max(1)
    return best.values, best.indices


def _pairs(teacher: LoadedTeacher, images: Tensor, nearest: Tensor, partner: Tensor) -> list[Pair]:
    found: dict[tuple[int, int], float] = {}
    for row in nearest.argsort(descending=True).tolist():
        other = int(partner[row])
        found.setdefault((min(row, other), max(row, other)), float(nearest[row]))
    return [
        Pair(cosine, tuple(_shown(teacher, images, row) for row in pair))
        for pair, cosine in list(found.items())[:PAIRS]
        if len(images) > 1
    ]


def _shown(teacher: LoadedTeacher, images: Tensor, row: int) -> Picture:
    says = f"synthetic image {row}"
    return picture(images[row], teacher.preprocessing, says, f"image {row}")
