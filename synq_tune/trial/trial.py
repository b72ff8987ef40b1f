"""One trial: quantize → calibrate → finetune → evaluate. Knows neither Ray nor MLflow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor, fx

from synq_tune.config import FineTune
from synq_tune.finetune.divergence import check_finite_state, diverges_at
from synq_tune.finetune.loop import EpochMetrics, finetune
from synq_tune.finetune.optimizer import optimizer_of
from synq_tune.finetune.training_state import pack, restore
from synq_tune.quantization.ready import fit_ranges, let_through
from synq_tune.quantization.student import quantize_student
from synq_tune.trial.assets import Assets
from synq_tune.trial.rungs import is_evaluated
from synq_tune.views.source import ViewSource
from synq_tune.views.teacher_cache import load_teacher_cache


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
        views = load_teacher_cache(assets.teacher, assets.dataset, self.config, assets.store)
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
