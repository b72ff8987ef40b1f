"""Labels: those that images are made for, and those of images that came without."""

from __future__ import annotations

import torch
from torch import Tensor

from synq_tune.config.synthesis import BatchSettings
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.seeds import batch_generator
from synq_tune.synthesis.batches import batch_sizes
from synq_tune.synthesis.optimize import device_of


def batch_labels(
    num_classes: int, config: BatchSettings, number: int, size: int, generator: torch.Generator
) -> Tensor:
    """Labels (size,) int64 of the batch `number`, on the CPU.

    Args:
        num_classes: of the teacher.
        config: `labels`, where it has that, says how they are spread over the dataset.
        number: of the batch.
        size: its images.
        generator: the batch's own.
    """
    if getattr(config, "labels", "random") == "random":
        return torch.randint(num_classes, (size,), generator=generator)
    sizes = batch_sizes(config.num_images + config.num_holdout, config.batch_size)
    first = sum(sizes[:number])
    rounds = range(first // num_classes, (first + size - 1) // num_classes + 1)
    order = [
        torch.randperm(num_classes, generator=batch_generator(config.seed, "labels", r))
        for r in rounds
    ]
    begin = first - rounds.start * num_classes
    return torch.cat(order)[begin : begin + size]


@torch.no_grad()
def teacher_labels(teacher: LoadedTeacher, images: Tensor, batch_size: int) -> Tensor:
    """The teacher's arg-max (N,) int64 on the CPU, of images (N, C, H, W) in any float type."""
    device = device_of(teacher)
    parts = [teacher(p.to(device).float()).argmax(1).cpu() for p in images.split(batch_size)]
    return torch.cat(parts)
