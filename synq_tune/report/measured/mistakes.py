"""What the best student gets wrong on labelled images that chose nothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx

from synq_tune.data.images import LabelledImages
from synq_tune.data.labelled_cache import SPLIT_SEED
from synq_tune.data.split import stratified_rows
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.report.blocks import Picture
from synq_tune.report.measured.synthetic import class_name
from synq_tune.report.pixels import picture
from synq_tune.trial.evaluation import predict

MOST_IMAGES = 2000
MOST_PAIRS, WORST = 10, 12
NUM_BINS = 10


@dataclass(frozen=True)
class ClassScore:
    """How one class fares; accuracies in percent."""

    name: str
    count: int
    student: float
    teacher: float


@dataclass(frozen=True)
class Reliability:
    """Images whose confidence lies in one bin."""

    confidence: float
    """Mean, percent."""
    accuracy: float
    """Percent."""
    count: int


@dataclass(frozen=True)
class Mistakes:
    """Of the reporting half, or a stratified part of it."""

    count: int
    classes: list[ClassScore]
    """The one that loses most first."""
    confusions: list[tuple[str, str, int]]
    """(class, what the student says, how often), the most frequent first."""
    num_wrong: int
    worst: list[Picture]
    """Wrong ones, those of which the student is surest first."""
    student: list[Reliability]
    teacher: list[Reliability]
    student_gap: float
    """Expected calibration error (Guo et al., 2017): the mean of |confidence - accuracy| over the
    bins, weighted by their images; points."""
    teacher_gap: float


def mistakes(teacher: LoadedTeacher, student: fx.GraphModule, data: LabelledImages) -> Mistakes:
    """Compare student and teacher image by image.

    Args:
        data: labelled images that chose nothing.
    """
    rows = stratified_rows(data, MOST_IMAGES, SPLIT_SEED)
    rows = torch.arange(len(data)) if rows is None else rows
    labels, device = data.labels[rows], next(teacher.graph.parameters()).device
    prepare = teacher.preprocessing.normalize
    logits = [predict(m, data.images, device, prepare, rows) for m in (student, teacher)]
    own, full = (values.softmax(1) for values in logits)
    bins, full_bins = _reliability(own, labels), _reliability(full, labels)
    wrong = (own.argmax(1) != labels).nonzero()[:, 0]
    return Mistakes(
        len(rows), _by_class(teacher, own, full, labels), _confusions(teacher, own, labels),
        len(wrong), _worst(teacher, data, rows, own, labels, wrong), bins, full_bins,
        _gap(bins), _gap(full_bins),
    )  # fmt: skip


def _by_class(
    teacher: LoadedTeacher, own: Tensor, full: Tensor, labels: Tensor
) -> list[ClassScore]:
    right = [100.0 * (p.argmax(1) == labels).double() for p in (own, full)]
    scores = []
    for label in labels.unique().tolist():
        of_class = labels == label
        means = (float(r[of_class].mean()) for r in right)
        scores.append(ClassScore(class_name(teacher, label), int(of_class.sum()), *means))
    return sorted(scores, key=lambda s: s.student - s.teacher)


def _confusions(teacher: LoadedTeacher, own: Tensor, labels: Tensor) -> list[tuple[str, str, int]]:
    said, num_classes = own.argmax(1), own.shape[1]
    is_wrong = said != labels
    pairs, counts = (labels * num_classes + said)[is_wrong].unique(return_counts=True)
    order = counts.argsort(descending=True, stable=True)[:MOST_PAIRS]
    found = [(*divmod(int(pairs[n]), num_classes), int(counts[n])) for n in order]
    return [(class_name(teacher, a), class_name(teacher, b), count) for a, b, count in found]


def _worst(
    teacher: LoadedTeacher, data: LabelledImages, rows: Tensor, own: Tensor, labels: Tensor,
    wrong: Tensor,
) -> list[Picture]:  # fmt: skip
    surest = own[wrong].amax(1).argsort(descending=True)[:WORST]
    shown = []
    for at in wrong[surest].tolist():
        image = teacher.preprocessing.normalize(data.images[rows[at]][None])[0]
        truth, said = (
            class_name(teacher, int(labels[at])),
            class_name(teacher, int(own[at].argmax())),
        )
        caption = f"{truth}, taken for {said} ({100 * float(own[at].max()):.0f} %)"
        shown.append(picture(image, teacher.preprocessing, f"labelled image: {caption}", caption))
    return shown


def _reliability(probabilities: Tensor, labels: Tensor) -> list[Reliability]:
    """Bins of equal width of the confidence, those without an image left out."""
    confidence, said = probabilities.max(1)
    right = (said == labels).double()
    place = (confidence * NUM_BINS).long().clamp_max(NUM_BINS - 1)
    bins = [place == n for n in range(NUM_BINS)]
    return [
        Reliability(
            100 * float(confidence[b].double().mean()), 100 * float(right[b].mean()), int(b.sum())
        )
        for b in bins
        if b.any()
    ]


def _gap(bins: list[Reliability]) -> float:
    total = sum(b.count for b in bins)
    return sum(b.count * abs(b.confidence - b.accuracy) for b in bins) / max(total, 1)
