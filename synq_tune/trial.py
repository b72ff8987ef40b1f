"""One trial: quantize → calibrate → finetune → evaluate. Knows neither Ray nor MLflow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, fx

from synq_tune.config import FineTune, StudySpec
from synq_tune.data.labelled import LabelledImages, load_labelled
from synq_tune.data.shared_halves import Halves, share_halves, shared_halves
from synq_tune.data.split import split_halves, stratified_rows
from synq_tune.data.synthetic import SyntheticDataset, load_dataset
from synq_tune.errors import InputError
from synq_tune.evaluation import BATCH_SIZE, Probes, load_probes, top1
from synq_tune.finetune.divergence import check_finite_state, diverges_at
from synq_tune.finetune.loop import EpochMetrics, finetune
from synq_tune.finetune.optimizer import optimizer_of
from synq_tune.finetune.source import ViewSource
from synq_tune.finetune.training_state import pack, restore
from synq_tune.finetune.views import load_views
from synq_tune.models.teacher import LoadedTeacher, load_teacher
from synq_tune.quantization.ready import fit_ranges, let_through
from synq_tune.quantization.student import quantize_student

REDUCTION_FACTOR = 3
"""ASHA keeps the best third at each rung."""

GOLDEN_IMAGES = 32

_SPLIT_SEED = 0
"""The halves of labelled data never depend on the study's seed: tables of studies compare."""


def grace_epochs(epochs: int) -> int:
    """First rung: a ninth of the epochs, so that the rungs are about 1/9 and 1/3."""
    return max(1, math.ceil(epochs / REDUCTION_FACTOR**2))


def is_evaluated(spec: StudySpec, epochs: int) -> Callable[[int], bool]:
    """Which epochs (from 1) are evaluated: every n-th, or ASHA's rungs and the last."""
    every = spec.study.eval_every
    if every != "auto":
        return lambda epoch: epoch % every == 0 or epoch == epochs
    grace = grace_epochs(epochs)
    rungs = {grace, grace * REDUCTION_FACTOR, epochs}
    return rungs.__contains__


@dataclass(frozen=True)
class Assets:
    """What all trials of a study share on one node."""

    spec: StudySpec
    teacher: LoadedTeacher
    dataset: SyntheticDataset
    probes: Probes
    """The unlabelled images that may decide."""
    choose: LabelledImages | None
    """The labelled half that may decide; None without `val_data`."""
    report: LabelledImages | None
    """The labelled half that only reports."""
    store: Path
    device: torch.device
    _rows: dict[int, Tensor | None] = field(default_factory=dict)

    @cached_property
    def report_probes(self) -> Probes:
        """The unlabelled images that only report; few processes need them."""
        return load_probes(self.teacher, self.dataset, self.store, "report")

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
            self._rows[count] = stratified_rows(self.choose, count, _SPLIT_SEED)
        return self._rows[count]


def choose_device() -> torch.device:
    """The GPU Ray gave this process, or the first; else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_halves(spec: StudySpec, teacher: LoadedTeacher) -> Halves | tuple[None, None]:
    """The labelled images, split into a choosing and a reporting half; Nones without any.

    Raises:
        InputError: there are too few images, or the data does not fit the teacher.
    """
    if spec.study.val_data is None:
        return None, None
    data = load_labelled(
        spec.study.val_data, teacher.preprocessing, teacher.num_classes, teacher.class_names
    )
    # Of a part of the classes only those that are there can be asked for.
    present = len(data.labels.unique())
    if len(data) < 2 * present:
        raise InputError(
            f"val_data: `at least two images per class` must hold, but got {len(data)} images for "
            f"{present} classes in {spec.study.val_data}."
        )
    return split_halves(data, _SPLIT_SEED)


def share_labelled(spec: StudySpec, teacher: LoadedTeacher, store: Path) -> str | None:
    """Decode the labelled images into `store`, for every process of this node to map.

    Returns:
        Their address; None without `val_data`.

    Raises:
        InputError: see `load_halves`.
    """
    choose, report = load_halves(spec, teacher)
    return None if choose is None or report is None else share_halves((choose, report), store)


def mapped_halves(
    spec: StudySpec, teacher: LoadedTeacher, store: Path, address: str | None = None
) -> Halves | tuple[None, None]:
    """The labelled halves, mapped from `store`; decoded where this node's store lacks them.

    Args:
        address: what the study's driver decoded; None where this process is the first.

    Raises:
        InputError: this node's images are not the driver's, or see `load_halves`.
    """
    found = shared_halves(address, store) if address else None
    if found is not None:
        return found
    here = share_labelled(spec, teacher, store)
    if address not in (None, here):
        raise InputError(
            "`the labelled images are the same on every machine` must hold, but those in "
            f"{spec.study.val_data} differ here from the driver's."
        )
    if here is None:
        return None, None
    halves = shared_halves(here, store)
    assert halves is not None, "it was written a moment ago"
    return halves


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
    teacher = load_teacher(spec.teacher, device, spec.finetune.cam_layer)
    dataset = load_dataset(dataset_path)
    choose, report = mapped_halves(spec, teacher, store, labelled)
    probes = load_probes(teacher, dataset, store)
    return Assets(spec, teacher, dataset, probes, choose, report, store, device)


def all_images(assets: Assets) -> Iterator[Tensor]:
    """All evaluation and hold-out images in batches (N, C, H, W), normalised float32.

    One batch at a time: as floats, ImageNet's validation images take 30 GB.
    """
    for half in (assets.choose, assets.report):
        if half is not None:
            yield from map(assets.teacher.preprocessing.normalize, half.images.split(BATCH_SIZE))
    yield from map(Tensor.float, assets.dataset.holdout_images.split(BATCH_SIZE))


def golden_images(assets: Assets) -> Tensor:
    """The images (32, C, H, W) whose codes and logits go into `golden.npz`."""
    return assets.probes.images[:GOLDEN_IMAGES].float()


class Trial:
    """One configuration, from a fresh quantized copy of the teacher to its last evaluation."""

    def __init__(
        self,
        assets: Assets,
        config: FineTune,
        seed: int,
        calibrate_on: Literal["synthetic", "noise"] = "synthetic",
    ) -> None:
        """Nothing runs yet; `student` exists once `run` has yielded.

        Args:
            config: the trial's training settings; 0 epochs is calibration only.
            seed: orders the batches.
            calibrate_on: the dataset, or standard normal noise of the same shape.
        """
        self.assets, self.config, self.seed = assets, config, seed
        self.calibrate_on = calibrate_on
        self.student: fx.GraphModule | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._epoch = 0

    def run(
        self, start: bytes | None = None, is_kept: Callable[[int], bool] = lambda epoch: False
    ) -> Iterator[EpochMetrics]:
        """Yield each evaluated epoch with losses and accuracies (percent).

        Args:
            start: `state` of the same trial in another process; it goes on behind that epoch and
                ends as if it had never stopped.
            is_kept: asked after each epoch (from 1); one that is not evaluated but kept is yielded
                without accuracies, so that the caller can take its `state`.

        Raises:
            NonFiniteError: the trial diverged: a loss, a weight, a range, a logit or a metric is NaN or
                infinite.
        """
        assets, config = self.assets, self.config
        torch.manual_seed(self.seed)
        self.student = quantize_student(assets.teacher, assets.spec.bits, assets.spec.quantizer)
        source = self._source()
        with diverges_at(0, config):
            self._prepare(source, start)
        if config.epochs == 0:
            yield EpochMetrics(0, {}, self._evaluate(0, is_last=True))
            return
        evaluated = is_evaluated(assets.spec, config.epochs)
        rows = finetune(
            self.student, source, config, lambda epoch: evaluated(epoch) or is_kept(epoch),
            assets.teacher.graph, self._epoch, self._optimizer,
        )  # fmt: skip
        for row in rows:
            self._epoch, is_last = row.epoch, row.epoch == config.epochs
            if is_last or evaluated(row.epoch):
                row.metrics = self._evaluate(row.epoch, is_last)
            yield row

    def _evaluate(self, epoch: int, is_last: bool) -> dict[str, float]:
        with diverges_at(epoch, self.config):
            return self.assets.evaluate(self.student, is_last)

    def _prepare(self, source: ViewSource, start: bytes | None) -> None:
        """Make student and optimizer ready for the first step, or for the one after `start`."""
        width = self.assets.spec.bits.activations
        if start is None:
            fit_ranges(self.student, self.config, width, self._calibration_batches(source))
            check_finite_state(self.student)
        let_through(self.student, self.config, width)
        self._optimizer = optimizer_of(self.student, self.config)
        if start is not None:
            self._epoch = restore(start, self.student, self._optimizer)

    def state(self, **more: float) -> bytes:
        """All it takes to go on behind the epoch yielded last; see `training_state.pack`."""
        return pack(self.student, self._optimizer, self._epoch, **more)

    def _source(self) -> ViewSource:
        assets = self.assets
        views = load_views(assets.teacher, assets.dataset, self.config, assets.store)
        dataset = assets.dataset
        return ViewSource(
            dataset.train_images, dataset.train_labels, views, self.config, self.seed,
            assets.device,
        )  # fmt: skip

    def _calibration_batches(self, source: ViewSource) -> Iterator[Tensor]:
        if self.calibrate_on == "synthetic":
            yield from source.calibration_batches()
            return
        generator = torch.Generator().manual_seed(self.seed)
        shape = self.assets.teacher.preprocessing.shape
        for _ in range(self.config.calibration_batches):
            noise = torch.randn(self.config.batch_size, *shape, generator=generator)
            yield noise.to(self.assets.device)
