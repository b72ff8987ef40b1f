"""Divide a dataset into batches and make one after the other, each resumable."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from synq_tune.config.synthesis import BatchSettings
from synq_tune.errors import NonFiniteLossError
from synq_tune.process.progress import progress_bar
from synq_tune.synthesis.generated import GeneratedImages
from synq_tune.synthesis.shards import Shard, load_or_make


def batch_sizes(count: int, batch_size: int) -> list[int]:
    """Sizes of the fewest batches of at most `batch_size`, as even as possible.

    Even ones because the statistics of a last batch of a few images say little.
    """
    number = -(-count // batch_size)
    small, larger = divmod(count, number)
    return [small + 1] * larger + [small] * (number - larger)


def batch_name(number: int) -> str:
    """What a finished batch of images is filed under."""
    return f"images-{number:05d}"


def make_batches(
    config: BatchSettings, folder: Path, make: Callable[[int, int, tqdm], Shard], show: bool
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
                load_or_make(folder, batch_name(number), partial(make, number, size, bar))
            )
            bar.update((number + 1) * config.iterations - bar.n)  # a batch of an earlier run
    return _assemble(shards)


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
