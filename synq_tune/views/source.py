"""Where the training loop gets its batches: the stored views, or a source that trains along."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from synq_tune import own_code
from synq_tune.config import FineTune
from synq_tune.data.synthetic import SyntheticDataset
from synq_tune.errors import InputError
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.names import resolve
from synq_tune.seeds import derive_seed
from synq_tune.views.teacher_cache import TeacherCache, load_teacher_cache
from synq_tune.views.transforms import base_images


@dataclass(frozen=True)
class Batch:
    """One step's data, all on the device."""

    images: Tensor
    """(N, C, H, W) float32, normalised, cropped, blended, filtered."""
    labels: Tensor
    """(N,)."""
    teacher_logits: Tensor
    """(N, K) float32."""
    saliency: Tensor | None
    """(N, h, w), the teacher's map of the trial's technique; None where CAM is off."""
    difficulty: Tensor
    """(N,) in [0, 1]."""
    shares: Tensor | None = None
    """(N, K) of images of several classes, whose label is the largest share; None: one class
    each."""

    @property
    def target(self) -> Tensor:
        """What cross-entropy asks for: labels (N,), or shares (N, K)."""
        return self.labels if self.shares is None else self.shares


@dataclass(frozen=True)
class SourceMaterial:
    """What a source is made from."""

    teacher: LoadedTeacher
    dataset: SyntheticDataset
    store: Path
    device: torch.device


class Source(ABC):
    """Batches of a trial; the same ones for the same seed, epoch and state.

    A family member is a function `(material, config, seed) → Source`.
    """

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int:
        """Number of batches of one epoch, ≥ 1."""

    @abstractmethod
    def batches(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch (0-based)."""

    def image_batches(self, epoch: int) -> Iterator[Tensor]:
        """Batches of images (N, C, H, W) of an epoch (0-based) for a stage that asks nothing else;
        one that trains along makes them as it is, without a step, so that they can be made
        again."""
        return (batch.images for batch in self.batches(epoch))

    @abstractmethod
    def calibration_images(self) -> Iterator[Tensor]:
        """Batches of images (N, C, H, W) on which ranges are observed."""

    @property
    def warmup_epochs(self) -> int:
        """Epochs that the source trains alone before the student's first."""
        return 0

    @property
    def freeze_epoch(self) -> int:
        """Epochs of the warm-up behind which the student's ranges are found, for good."""
        return self.warmup_epochs

    @property
    def asks_student(self) -> bool:
        """Whether the warm-up looks at the student, which then has ranges from its start on."""
        return False

    def watch(self, student: nn.Module) -> None:
        """Told which student trains on the batches: before an epoch, and where it is another."""
        return None

    def warm_up(self, epoch: int) -> None:
        """Train for an epoch of the warm-up (0-based); the same for the same seed and state."""
        return None

    def after_step(self, student: nn.Module, batch: Batch) -> None:
        """The student took its step on `batch`: a source that trains along takes its own."""
        return None

    def losses(self) -> dict[str, float]:
        """The source's own losses of the epoch that has just ended, by name."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """What `restore` needs to go on as if never stopped: weights, moments, generators."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take what `state` gave after the last finished epoch, in another process."""
        if state:
            raise ValueError(
                f"`a source without a state gets none` must hold, but got {list(state)}."
            )


def load_source(material: SourceMaterial, config: FineTune, seed: int) -> Source:
    """The source that `config.source` names.

    Raises:
        InputError: the user's own function gives no `Source`.
    """
    source = resolve("source", config.source)(material, config, seed)
    if not isinstance(source, Source):
        raise InputError(
            f"finetune.source {own_code.label(config.source)}: `it returns a synq_tune.views.source."
            f"Source` must hold, but got {type(source).__name__}."
        )
    return source


def stores_views(config: FineTune) -> bool:
    """Whether trials read stored views: of every source that does not say `stores_views = False`."""
    return getattr(resolve("source", config.source), "stores_views", True)


def view_source(material: SourceMaterial, config: FineTune, seed: int) -> ViewSource:
    """The dataset's training part in its stored views."""
    dataset = material.dataset
    views = load_teacher_cache(material.teacher, dataset, config, material.store)
    images, labels = dataset.train_images, dataset.train_labels
    return ViewSource(images, labels, views, config, seed, material.device)


class ViewSource(Source):
    """Draws every image once per epoch, in a seeded order, in the epoch's view."""

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        views: TeacherCache,
        config: FineTune,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """Put images (N, C, H, W), labels (N,) and their views on `device`."""
        self.config = config
        self.seed = seed
        self.images = base_images(images, config).to(device)
        self.labels = labels.to(device)
        self.views = views.to(device)

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches of one epoch."""
        one_pass = -(-len(self.images) // self.config.batch_size)
        return self.config.steps_per_epoch or one_pass

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch (0-based); the same for the same seed and epoch."""
        view = epoch % len(self.views.logits)
        generator = torch.Generator().manual_seed(derive_seed("epoch", self.seed, epoch))
        parts = self._orders(generator)
        for index in itertools.islice(parts, self.steps_per_epoch):
            yield self._batch(index.to(self.images.device), view)

    def _orders(self, generator: torch.Generator) -> Iterator[Tensor]:
        while True:
            order = torch.randperm(len(self.images), generator=generator)
            yield from order.split(self.config.batch_size)

    def _batch(self, index: Tensor, view: int) -> Batch:
        views, config = self.views, self.config
        images = views.transforms.pixels(self.images, view, index, config)
        maps = views.saliency[config.cam][view][index] if config.lambda_cam > 0 else None
        logits = views.logits[view][index].float()
        return Batch(images, self.labels[index], logits, maps, views.difficulty[view][index])

    def calibration_images(self) -> Iterator[Tensor]:
        """Images of the first views, enough for `calibration_batches` batches (N, C, H, W)."""
        epochs = itertools.chain.from_iterable(map(self.batches, itertools.count()))
        for batch in itertools.islice(epochs, self.config.calibration_batches):
            yield batch.images
