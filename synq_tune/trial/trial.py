"""One trial: quantize → warm up → calibrate → reconstruct → finetune → evaluate. Knows neither Ray
nor MLflow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, fx

from synq_tune.config import Bits, FineTune, Reconstruct
from synq_tune.finetune.divergence import check_finite_state, diverges_at
from synq_tune.finetune.loop import EpochMetrics, finetune
from synq_tune.finetune.optimizer import optimizer_of
from synq_tune.finetune.training_state import (
    about,
    own_tensors,
    pack,
    pack_stage,
    restore,
    restore_student,
)
from synq_tune.quantization.ready import fit_ranges, let_through
from synq_tune.quantization.student import quantize_student
from synq_tune.trial.assets import Assets
from synq_tune.trial.costs import costs_of
from synq_tune.trial.rungs import is_evaluated
from synq_tune.trial.stages import Position, Progress, reconstruct
from synq_tune.views.source import Source, SourceMaterial, load_source

_WARMUP, _RECONSTRUCT, _FINETUNE = "warmup", "reconstruct", "finetune"
"""Names of the stages in a checkpoint; one without a name is of fine-tuning."""


class Trial:
    """One configuration, from a fresh quantized copy of the teacher to its last evaluation."""

    def __init__(
        self,
        assets: Assets,
        config: FineTune,
        seed: int,
        calibrate_on: Literal["synthetic", "noise"] = "synthetic",
        reconstruct: Reconstruct | None = None,
        bits: Bits | None = None,
    ) -> None:
        """Nothing runs yet; `student` exists once `run` has yielded.

        Args:
            config: the trial's training settings; 0 epochs train nothing.
            seed: orders the batches.
            calibrate_on: the dataset, or standard normal noise of the same shape.
            reconstruct: the stage before training; None: that of the study's settings.
            bits: widths; None: those of the study's settings.
        """
        self.assets, self.config, self.seed = assets, config, seed
        self.reconstruct = assets.spec.reconstruct if reconstruct is None else reconstruct
        self.bits = assets.spec.bits if bits is None else bits
        self.calibrate_on = calibrate_on
        self.student: fx.GraphModule | None = None
        self._source: Source | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._epoch = 0
        self._stage = _FINETUNE
        self._progress: Progress | None = None
        self._unreported: dict[str, float] = {}  # losses of earlier stages, until an evaluation
        self._parts: int | None = None  # before training that this process has finished
        self._earlier: dict[int, dict[str, float]] = {}  # losses of epochs, until the same

    def run(
        self, start: bytes | None = None, is_kept: Callable[[int], bool] = lambda epoch: False
    ) -> Iterator[EpochMetrics]:
        """Yield each evaluated epoch with losses and accuracies (percent), a reconstruction first.

        Args:
            start: `state` of the same trial in another process; it goes on behind that epoch, or
                that part of a reconstruction, and ends as if it had never stopped.
            is_kept: asked after each epoch (from 1), and with 0 after each epoch of the source
                alone and each part of a reconstruction; one that is not evaluated but kept is
                yielded without accuracies, so that the caller can take its `state`.

        Raises:
            NonFiniteError: the trial diverged: a loss, a weight, a range, a logit or a metric is
                NaN or infinite.
        """
        for row in self._begin(start):
            if is_kept(0):
                yield row
        if self.config.epochs == 0:
            yield EpochMetrics(0, self._unreported, self._evaluate(0, is_last=True), is_last=True)
            return
        if self._parts is not None:
            yield self._reconstructed()
        yield from self._train(is_kept)

    def untrained(self) -> fx.GraphModule:
        """The student before its first step, calibrated and reconstructed; nothing is measured.

        Raises:
            NonFiniteError: a weight or a range is NaN or infinite.
        """
        for _ in self._begin(None):
            pass
        return self.student

    def _begin(self, start: bytes | None) -> Iterator[EpochMetrics]:
        """Make everything for the first step; yields what of it is done, part by part."""
        assets, config = self.assets, self.config
        torch.manual_seed(self.seed)
        self.student = self._fresh_student()
        material = SourceMaterial(assets.teacher, assets.dataset, assets.store, assets.device)
        self._source = load_source(material, config, self.seed)
        with diverges_at(0, config):
            yield from self._prepare(start)
        self._progress = None

    def _fresh_student(self) -> fx.GraphModule:
        assets = self.assets
        return quantize_student(assets.teacher, self.bits, assets.spec.quantizer)

    def _reconstructed(self) -> EpochMetrics:
        """What reconstruction alone gives; its state, of training, is one behind the last part."""
        metrics = self._evaluate(0, is_last=False)
        losses, self._unreported = self._unreported, {}
        return EpochMetrics(0, losses, metrics, position=self._parts + 1)

    def _train(self, is_kept: Callable[[int], bool]) -> Iterator[EpochMetrics]:
        config = self.config
        evaluated = is_evaluated(self.assets.spec, config.epochs)
        rows = finetune(
            self.student,
            self._source,
            config,
            lambda epoch: evaluated(epoch) or is_kept(epoch),
            self.assets.teacher.graph,
            self._epoch,
            self._optimizer,
        )
        for row in rows:
            self._epoch, row.is_last = row.epoch, row.epoch == config.epochs
            self._earlier |= row.earlier
            if row.is_last or evaluated(row.epoch):
                row.metrics = self._evaluate(row.epoch, row.is_last)
                row.losses |= self._unreported
                row.earlier, self._earlier, self._unreported = self._earlier, {}, {}
            else:
                self._earlier[row.epoch] = row.losses
            yield row

    def _evaluate(self, epoch: int, is_last: bool) -> dict[str, float]:
        with diverges_at(epoch, self.config):
            metrics = self.assets.evaluate(self.student, is_last)
        if is_last and self.assets.spec.measures_costs:
            metrics |= costs_of(self.student)
        return metrics

    def _prepare(self, start: bytes | None) -> Iterator[EpochMetrics]:
        """Make student and optimizer ready for the first step, or for the one after `start`.

        Yields:
            The epochs of the source alone, then the parts that a reconstruction finishes.
        """
        stage = None if start is None else about(start).get("stage", _FINETUNE)
        if stage in (None, _WARMUP):
            yield from self._warm_up(start)
        if stage != _FINETUNE:
            yield from self._reconstruct(start if stage == _RECONSTRUCT else None)
        else:
            self._unreported = about(start).get("unreported", {})
        let_through(self.student, self.config, self.bits.activations)
        self._optimizer = optimizer_of(self.student, self.config)
        if stage == _FINETUNE:
            self._epoch = restore(start, self.student, self._optimizer)
            self._source.restore(own_tensors(start, "source"))
            earlier = about(start).get("earlier", {})
            self._earlier = {int(epoch): losses for epoch, losses in earlier.items()}

    def _warm_up(self, start: bytes | None) -> Iterator[EpochMetrics]:
        """The source's epochs alone, with calibration where it belongs between them."""
        source, done = self._source, 0
        if start is not None:
            done = self._restore_stage(start).parts
        self._stage = _WARMUP
        for epoch in range(done, self._warmup_epochs + 1):
            self._find_ranges(epoch)
            if epoch < self._warmup_epochs:
                source.warm_up(epoch)
                losses = source.losses()
                self._unreported = {f"warmup/{name}": value for name, value in losses.items()}
                self._progress = Progress(epoch + 1)
                yield EpochMetrics(0, dict(self._unreported), position=epoch + 1)

    @property
    def _warmup_epochs(self) -> int:
        """Of the source; none where nothing reads what it would make."""
        is_read = self.calibrate_on == "synthetic" or self.config.epochs > 0
        return self._source.warmup_epochs if is_read or self.reconstruct.is_on else 0

    def _find_ranges(self, epoch: int) -> None:
        """Calibrate for good, or for now, before an epoch of the warm-up (behind the last: its
        number)."""
        source, last = self._source, min(self._source.freeze_epoch, self._warmup_epochs)
        if epoch == last or (epoch < last and source.asks_student):
            if epoch > 0:  # clipping and correcting are for fresh weights
                self.student = self._fresh_student()
            width = self.bits.activations
            fit_ranges(self.student, self.config, width, self._calibration_images())
            check_finite_state(self.student)
        source.watch(self.student)

    def _restore_stage(self, start: bytes) -> Position:
        """Bring student, source and losses to a state of a stage before fine-tuning."""
        restore_student(start, self.student)
        if source := own_tensors(start, "source"):
            self._source.restore(source)
        self._unreported = about(start).get("unreported", {})
        self._source.watch(self.student)
        return Position(about(start)["position"], own_tensors(start, _RECONSTRUCT))

    def _reconstruct(self, start: bytes | None) -> Iterator[EpochMetrics]:
        position = Position() if start is None else self._restore_stage(start)
        self._stage, before = _RECONSTRUCT, self._warmup_epochs
        self._parts = before + position.parts if self.reconstruct.is_on else None
        rows = reconstruct(self.student, self._source, self.assets, self.reconstruct, position)
        for self._progress in rows:
            self._parts = before + self._progress.position
            check_finite_state(self.student)
            self._unreported |= self._progress.losses
            yield EpochMetrics(0, self._progress.losses, position=self._parts)

    def state(self, **more: Any) -> bytes:
        """All it takes to go on behind what was yielded last; see `training_state`."""
        more |= {"unreported": self._unreported} if self._unreported else {}
        source = self._source.state()
        if self._progress is not None:
            place = self._stage, self._progress.position, self._progress.state()
            return pack_stage(self.student, *place, source, **more)
        more |= {"earlier": self._earlier} if self._earlier else {}
        return pack(self.student, self._optimizer, self._epoch, source, **more)

    def _calibration_images(self) -> Iterator[Tensor]:
        if self.calibrate_on == "synthetic":
            yield from self._source.calibration_images()
            return
        generator = torch.Generator().manual_seed(self.seed)
        shape = self.assets.teacher.preprocessing.shape
        for _ in range(self.config.calibration_batches):
            noise = torch.randn(self.config.batch_size, *shape, generator=generator)
            yield noise.to(self.assets.device)
