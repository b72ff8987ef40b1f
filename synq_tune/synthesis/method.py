"""What a synthesis method is: its settings, what it needs of the teacher, a canvas and an
objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from synq_tune.config import Synthesis
from synq_tune.config.synthesis import BatchSettings
from synq_tune.errors import InputError, lookup
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.process.progress import advance
from synq_tune.seeds import batch_generator
from synq_tune.synthesis.batches import make_batches, to_half
from synq_tune.synthesis.canvas import Canvas, pixel_canvas
from synq_tune.synthesis.generated import GeneratedImages
from synq_tune.synthesis.labels import batch_labels, teacher_labels
from synq_tune.synthesis.optimize import (
    Descent,
    Loss,
    device_of,
    optimize,
    plateau_descent,
    seeded_torch,
)
from synq_tune.synthesis.patch_similarity import attentions
from synq_tune.synthesis.shards import Shard
from synq_tune.synthesis.statistics import has_batchnorm

Draft = GeneratedImages
"""The name that code written for version 0.1 asks for."""

NEEDS: dict[str, Callable[[LoadedTeacher], object]] = {
    "batchnorm": has_batchnorm,
    "attention": attentions,
    "labels": lambda teacher: None,
}
"""What a method may ask for → the check that raises InputError where the teacher lacks it.

`labels`: images are made for labels drawn uniformly. Without, the teacher's arg-max labels them."""


@dataclass(frozen=True)
class Work:
    """One dataset in the making."""

    teacher: LoadedTeacher
    """Frozen, on the device to work on."""
    config: Any
    """The method's own settings."""
    folder: Path
    """For finished parts, so that a killed run continues."""
    show: bool
    """Whether to draw progress bars."""


@dataclass(frozen=True)
class Batch:
    """One batch in the making."""

    count: int
    labels: Tensor | None
    """(N,) int64 on the teacher's device; None for a method that needs none."""
    generator: torch.Generator
    """On the CPU, the batch's own."""


@dataclass(frozen=True)
class Objective:
    """What the batches of one dataset lower."""

    loss: Callable[[Batch], AbstractContextManager[Loss]]
    """A batch → a block in which its loss holds, and in which it may watch the teacher's layers."""
    notes: dict[str, Any] = field(default_factory=dict)
    """For the manifest."""


class Synthesizer(ABC):
    """Whatever makes a dataset: a method with a canvas, an import, a function of the user's."""

    needs: tuple[str, ...] = ()
    """Keys of NEEDS."""
    is_perturbed: bool = False
    """Whether `synthesis.perturbation` makes the training part harder against the student."""

    @abstractmethod
    def address(self, config: Synthesis) -> dict[str, Any]:
        """The part of the settings that changes the result, for its content address."""

    @abstractmethod
    def synthesize(
        self, teacher: LoadedTeacher, config: Synthesis, folder: Path, show: bool
    ) -> GeneratedImages:
        """Make the images.

        Args:
            teacher: frozen; stays unchanged.
            config: counts and the method's settings.
            folder: finished parts are kept here and not made twice.
            show: draw progress bars on standard error.

        Raises:
            InputError: the teacher has nothing this method needs, or images to import are wrong.
            NonFiniteLossError: the optimisation diverged.
        """

    def check(self, teacher: LoadedTeacher) -> None:
        """Raise InputError where the teacher lacks what the method needs."""
        for need in self.needs:
            NEEDS[need](teacher)

    def steps(self, config: Synthesis, num_classes: int) -> int:
        """Batches pushed through the teacher of so many classes while a dataset is made."""
        images = config.num_images + config.num_holdout
        return -(-images // config.batch_size) * config.iterations

    def canvas_bytes_of(self, teacher: LoadedTeacher, config: Synthesis) -> int:
        """Memory that a batch takes beside the teacher's weights and values."""
        return 0


def whole_images(
    images: Tensor, iteration: int, generator: torch.Generator, config: BatchSettings
) -> Tensor:
    """The images as they are."""
    return images


@dataclass(frozen=True, kw_only=True)
class SynthesisMethod(Synthesizer):
    """A method that optimises canvases, one batch after the other, each resumable.

    Every function is given `settings` and no other setting: the dataset's address is their dump.
    """

    settings: type[BatchSettings]
    """Composed of the classes in `config/synthesis.py`."""
    objective: Callable[[Work], Objective]
    """Made once for a dataset."""
    needs: tuple[str, ...] = ("labels",)
    canvas: Callable[[LoadedTeacher, Any, int, torch.Generator], Canvas] = pixel_canvas
    """(teacher, settings, images N, the batch's generator) → N images to optimise."""
    descent: Callable[[Any], Descent] = plateau_descent
    """Adam's settings and its schedule; the usual one asks for PlateauSettings and
    PrecisionSettings."""
    look: Callable[[Tensor, int, torch.Generator, Any], Tensor] = whole_images
    """(images, iteration, the batch's generator, settings) → what the teacher is shown."""
    is_perturbed: bool = False
    objective_steps: Callable[[Any, int], int] = lambda config, num_classes: 0
    """Batches that the objective itself pushes through the teacher."""
    canvas_bytes: Callable[[LoadedTeacher, Any], int] = lambda teacher, config: 0
    """Of a batch's canvas, where it is more than its pixels."""

    def __post_init__(self) -> None:
        """Refuse a need that nobody knows."""
        for need in self.needs:
            lookup("need of a synthesis method", need, NEEDS)

    def address(self, config: Synthesis) -> dict[str, Any]:
        """The dump of the method's own settings.

        Raises:
            InputError: another setting was asked for, which would be ignored.
        """
        refusal = config.refusal(self.settings)
        if refusal:
            raise InputError(f"synthesis: {refusal}")
        return config.part(self.settings).address()

    def steps(self, config: Synthesis, num_classes: int) -> int:
        """Batches pushed through the teacher, those of the objective as well."""
        own = config.part(self.settings)
        return super().steps(config, num_classes) + self.objective_steps(own, num_classes)

    def canvas_bytes_of(self, teacher: LoadedTeacher, config: Synthesis) -> int:
        """What `canvas_bytes` says."""
        return self.canvas_bytes(teacher, config.part(self.settings))

    def synthesize(
        self, teacher: LoadedTeacher, config: Synthesis, folder: Path, show: bool
    ) -> GeneratedImages:
        """Lower the objective over the canvas of every batch; see `Synthesizer.synthesize`."""
        own = config.part(self.settings)
        objective = self.objective(Work(teacher, own, folder, show))
        made = make_batches(own, folder, partial(self._make_batch, teacher, own, objective), show)
        return GeneratedImages(made.images, made.labels, {**made.notes, **objective.notes})

    def _make_batch(
        self,
        teacher: LoadedTeacher,
        config: BatchSettings,
        objective: Objective,
        number: int,
        size: int,
        bar: tqdm,
    ) -> Shard:
        generator = batch_generator(config.seed, "images", number)
        labels = None
        if "labels" in self.needs:
            labels = batch_labels(teacher.num_classes, config, number, size, generator)
        on_device = None if labels is None else labels.to(device_of(teacher))
        # A canvas's own layers may draw from torch's generator: each batch is the same, resumed or
        # not.
        with seeded_torch(generator.initial_seed(), device_of(teacher)):
            canvas = self.canvas(teacher, config, size, generator)
            with objective.loss(Batch(size, on_device, generator)) as loss:
                value = optimize(
                    teacher,
                    canvas,
                    loss,
                    self.descent(config),
                    partial(self.look, generator=generator, config=config),
                    partial(advance, bar),
                )
            with torch.no_grad():
                images = to_half(canvas.images())
        if labels is None:
            labels = teacher_labels(teacher, images, size)
        return Shard({"images": images, "labels": labels}, value)
