"""Where the training loop gets its batches: the stored views, remade into pixels on the device."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from synq_tune.config import FineTune
from synq_tune.seeds import derive_seed
from synq_tune.views.teacher_cache import TeacherCache
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


class ViewSource:
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

    def calibration_batches(self) -> Iterator[Tensor]:
        """Images of the first views, enough for `calibration_batches` batches (N, C, H, W)."""
        epochs = itertools.chain.from_iterable(map(self.batches, itertools.count()))
        for batch in itertools.islice(epochs, self.config.calibration_batches):
            yield batch.images
