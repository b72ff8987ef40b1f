"""Losses on BatchNorm statistics: how far a batch is from what the teacher remembers.

Statistics of L layers are lists of (mean, variance), each (C,), in module order; a layer's gap is
the mean over channels of the squared difference of means plus that of variances.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from synq_tune.errors import InputError
from synq_tune.graph.batchnorm import BatchStatistics, batch_statistics, batchnorm_layers, pool
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.synthesis.optimize import Loss

Moments = tuple[Tensor, Tensor]
StatisticsLoss = Callable[[Tensor, list[Moments]], Tensor]
"""(logits (N, K), statistics of every layer) → scalar loss."""


def remembered(model: nn.Module) -> list[Moments]:
    """Running mean and variance of every BatchNorm.

    Raises:
        InputError: the network has none, so that its data cannot be asked for this way.
    """
    layers = batchnorm_layers(model)
    if not layers:
        raise InputError(
            "`the teacher has BatchNorm layers` must hold for this synthesis method, but got none. "
            "Use synthesis.method=psaq for a vision transformer, or synthesis.method=images."
        )
    return [(layer.running_mean, layer.running_var) for layer in layers]


def in_order(model: nn.Module, statistics: BatchStatistics) -> list[Moments]:
    """A batch's statistics as a list like `remembered`'s."""
    return [statistics[layer] for layer in batchnorm_layers(model)]


@contextlib.contextmanager
def on_statistics(model: nn.Module, loss: StatisticsLoss, correction: int = 0) -> Iterator[Loss]:
    """A block in which the loss is given the statistics of the images that the model was shown
    last; for `correction` see `batch_statistics`."""
    with batch_statistics(model, correction) as statistics:
        yield lambda shown, logits: loss(logits, in_order(model, statistics))


def layer_gaps(batch: Sequence[Moments], target: Sequence[Moments]) -> Tensor:
    """mean_c (m - μ)² + mean_c (v - σ²)² of each layer, (L,)."""
    gaps = [
        (mean - target_mean).square().mean() + (variance - target_variance).square().mean()
        for (mean, variance), (target_mean, target_variance) in zip(batch, target, strict=True)
    ]
    return torch.stack(gaps)


def with_deviations(moments: Sequence[Moments], eps: float = 1e-5) -> list[Moments]:
    """(mean, standard deviation) instead of variances.

    `eps` is under the root as in BatchNorm itself: a channel that is constant in a batch would
    otherwise have an infinite gradient.
    """
    return [(mean, (variance + eps).sqrt()) for mean, variance in moments]


def split_index(num_layers: int) -> int:
    """First layer of the deeper part that centres align more strongly: ⌊(L + 2) / 2⌋ - 2, ≥ 0."""
    return max((num_layers + 2) // 2 - 2, 0)


def layered_loss(batch: Sequence[Moments], centers: Sequence[Moments]) -> Tensor:
    """Layered BNS loss: gaps of the layers from the split on to the centres, summed, over L.

    L counts all layers; the released code divides by the batch size as well, which ties its weight
    to the batch size and is not done here.

    Args:
        batch: of all L layers.
        centers: of the layers from `split_index(L)` on.
    """
    return layer_gaps(batch[split_index(len(batch)) :], centers).sum() / len(batch)


def pool_moments(parts: Sequence[tuple[int, Sequence[Moments]]]) -> list[Moments]:
    """Statistics of several batches together, as if they were one.

    Args:
        parts: (number of images, statistics) of each batch.
    """
    counts = [count for count, _ in parts]
    return [pool(counts, layer) for layer in zip(*(m for _, m in parts), strict=True)]


def has_batchnorm(teacher: LoadedTeacher) -> None:
    """Raise InputError for a teacher without BatchNorm, whose statistics images could be drawn
    to."""
    remembered(teacher.graph)
