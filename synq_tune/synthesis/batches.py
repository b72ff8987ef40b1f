"""Divide a dataset into batches and optimise one after the other, each resumable."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from synq_tune.config import Synthesis
from synq_tune.errors import NonFiniteLossError
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.synthesis.method import GeneratedImages
from synq_tune.synthesis.optimize import (
    Descent,
    Objective,
    device_of,
    optimize_pixels,
    seeded,
)
from synq_tune.synthesis.shards import Shard, load_or_make
from synq_tune.synthesis.start import first_pixels

Look = Callable[[Tensor, torch.Generator], Tensor]
"""(images, the batch's generator) → what the teacher is shown in this iteration."""


def batch_sizes(count: int, batch_size: int) -> list[int]:
    """Sizes of the fewest batches of at most `batch_size`, as even as possible.

    Even ones because the statistics of a last batch of a few images say little.
    """
    number = -(-count // batch_size)
    small, larger = divmod(count, number)
    return [small + 1] * larger + [small] * (number - larger)


def progress_bar(total: int, stage: str, show: bool) -> tqdm:
    """A bar over iterations on standard error, with the time left.

    Drawn twice a minute where nobody watches: a job's log keeps every one of them.
    """
    least, most = (0.1, 10.0) if sys.stderr.isatty() else (30.0, 60.0)
    return tqdm(
        total=total, desc=stage, unit="it", file=sys.stderr, disable=not show,
        mininterval=least, maxinterval=most,
    )  # fmt: skip


def advance(bar: tqdm, loss: float) -> None:
    """Show one more iteration and its loss."""
    bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
    bar.update()


def optimize_batches(
    teacher: LoadedTeacher,
    config: Synthesis,
    folder: Path,
    objective_of: Callable[[Tensor], Objective],
    look: Look = lambda images, generator: images,
    show: bool = True,
) -> GeneratedImages:
    """All images and labels, from what `config.start` says and uniform random labels.

    Args:
        teacher: frozen.
        config: counts, seed and learning rate.
        folder: finished batches are kept here and not made twice.
        objective_of: labels (N,) on the teacher's device → the batch's objective.
        look: what the teacher is shown.
        show: draw a progress bar.
    """
    make = partial(_make_batch, teacher, config, objective_of, look)
    return make_batches(config, folder, make, show)


def make_batches(
    config: Synthesis, folder: Path, make: Callable[[int, int, tqdm], Shard], show: bool
) -> GeneratedImages:
    """All images and labels, batch by batch.

    Args:
        config: counts and iterations.
        folder: finished batches are kept here and not made twice.
        make: (number, images, bar to advance in each iteration) → `images` and `labels`.
        show: draw a progress bar.
    """
    sizes = batch_sizes(config.num_images + config.num_holdout, config.batch_size)
    shards = []
    with progress_bar(len(sizes) * config.iterations, "images", show) as bar:
        for number, size in enumerate(sizes):
            shards.append(
                load_or_make(folder, f"images-{number:05d}", partial(make, number, size, bar))
            )
            bar.update((number + 1) * config.iterations - bar.n)  # a batch of an earlier run
    return _assemble(shards)


def _make_batch(
    teacher: LoadedTeacher,
    config: Synthesis,
    objective_of: Callable[[Tensor], Objective],
    look: Look,
    number: int,
    size: int,
    bar: tqdm,
) -> Shard:
    generator = seeded(config.seed, "images", number)
    labels = torch.randint(teacher.num_classes, (size,), generator=generator)
    pixels, loss = optimize_pixels(
        teacher,
        first_pixels(teacher, config.start, size, generator),
        objective_of(labels.to(device_of(teacher))),
        Descent(config.iterations, config.lr, config.lr_patience, config.min_lr, config.precision),
        partial(look, generator=generator),
        partial(advance, bar),
    )
    return Shard({"images": to_half(pixels), "labels": labels}, loss)


def to_half(pixels: Tensor) -> Tensor:
    """Pixels as a dataset keeps them, on the CPU.

    Raises:
        NonFiniteLossError: some are not finite in float16.
    """
    images = pixels.half().cpu()
    if not images.isfinite().all():
        raise NonFiniteLossError("synthesis left pixels that are not finite in float16.")
    return images


def _assemble(shards: list[Shard]) -> GeneratedImages:
    images = torch.cat([shard.tensors["images"] for shard in shards])
    labels = torch.cat([shard.tensors["labels"] for shard in shards])
    return GeneratedImages(images, labels, {"losses": [shard.loss for shard in shards]})
