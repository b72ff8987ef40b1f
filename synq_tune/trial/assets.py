"""What all trials of a study share on one node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from synq_tune.config import Study, StudySpec
from synq_tune.data.batches import ImageBatches, ImagePart
from synq_tune.data.labelled import LabelledImages
from synq_tune.data.labelled_cache import (
    SPLIT_SEED,
    mapped_halves,
)
from synq_tune.data.split import stratified_rows
from synq_tune.data.synthetic import SyntheticDataset, load_dataset
from synq_tune.models.teacher import LoadedTeacher, load_teacher
from synq_tune.trial.evaluation import AgreementSet, load_agreement_set, top1

GOLDEN_IMAGES = 32
_LEAST_PARITY = 2000
_PARITY_PIXELS = _LEAST_PARITY * 224 * 224


@dataclass(frozen=True)
class Assets:
    """What all trials of a study share on one node."""

    spec: StudySpec
    teacher: LoadedTeacher
    dataset: SyntheticDataset
    probes: AgreementSet
    """The unlabelled images that may decide."""
    choose: LabelledImages | None
    """The labelled half that may decide; None without `val_data`."""
    report: LabelledImages | None
    """The labelled half that only reports."""
    store: Path
    device: torch.device
    _rows: dict[int, Tensor | None] = field(default_factory=dict)

    @cached_property
    def report_probes(self) -> AgreementSet:
        """The unlabelled images that only report; few processes need them."""
        return load_agreement_set(self.teacher, self.dataset, self.store, "report")

    def evaluate(self, student: Callable[[Tensor], Tensor], is_last: bool) -> dict[str, float]:
        """Accuracies of a student: all choosing images at the last epoch, `eval_images` before."""
        metrics = self.probes.compare(student, self.device)
        if self.choose is not None:
            rows = None if is_last else self._subset(self.spec.study.eval_images)
            preprocessing = self.teacher.preprocessing
            metrics["top1"] = top1(student, self.choose, preprocessing, self.device, rows)
        return metrics

    def is_partial(self, is_last: bool) -> bool:
        """Whether `evaluate` measures top1 on a subset of the choosing images."""
        count = self.spec.study.eval_images
        return not is_last and self.choose is not None and count < len(self.choose)

    def _subset(self, count: int) -> Tensor | None:
        if count not in self._rows:
            self._rows[count] = stratified_rows(self.choose, count, SPLIT_SEED)
        return self._rows[count]


def choose_device() -> torch.device:
    """The GPU Ray gave this process, or the first; else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_assets(
    spec: StudySpec,
    dataset_path: Path,
    store: Path,
    device: torch.device,
    labelled: str | None = None,
) -> Assets:
    """Load what a trial needs from a finished dataset.

    Args:
        labelled: address of the labelled images, see `mapped_halves`.
    """
    teacher = load_teacher(spec.teacher, device, spec.finetune.cam_layer, store=store)
    dataset = load_dataset(dataset_path)
    choose, report = mapped_halves(spec, teacher, store, labelled)
    probes = load_agreement_set(teacher, dataset, store)
    return Assets(spec, teacher, dataset, probes, choose, report, store, device)


def parity_images(assets: Assets) -> ImageBatches:
    """What exported files are compared on: labelled images of both halves, and all hold-out
    ones."""
    preprocessing = assets.teacher.preprocessing
    share = -(-parity_share(assets.spec.study, preprocessing.shape) // 2)
    halves = tuple(
        ImagePart(half.images, stratified_rows(half, share, SPLIT_SEED), preprocessing.normalize)
        for half in (assets.choose, assets.report)
        if half is not None
    )
    return ImageBatches((*halves, ImagePart(assets.dataset.holdout_images, None, Tensor.float)))


def parity_share(study: Study, shape: tuple[int, ...]) -> int:
    """Labelled images of shape (C, H, W) that exported files are compared on, at most.

    A runtime may need a tenth of a second for an image of 224 px, and ImageNet has 50,000.
    """
    if study.parity_images != "auto":
        return study.parity_images
    return max(_LEAST_PARITY, _PARITY_PIXELS // (shape[1] * shape[2]))


def golden_images(assets: Assets) -> Tensor:
    """The images (32, C, H, W) whose codes and logits go into `golden.npz`."""
    return assets.probes.images[:GOLDEN_IMAGES].float()
