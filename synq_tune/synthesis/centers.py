"""Calibration centres (TexQ, SynQ's appendix D): one image per class that sets the texture."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from synq_tune.config.synthesis import SynqSettings
from synq_tune.graph.batchnorm import batch_statistics
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.process.progress import advance, progress_bar
from synq_tune.seeds import batch_generator
from synq_tune.synthesis.batches import batch_sizes
from synq_tune.synthesis.canvas import Pixels
from synq_tune.synthesis.optimize import (
    Descent,
    device_of,
    gaussian_pixels,
    optimize,
)
from synq_tune.synthesis.shards import Shard, load_or_make
from synq_tune.synthesis.statistics import (
    Moments,
    StatisticsLoss,
    in_order,
    layer_gaps,
    on_statistics,
    pool_moments,
    remembered,
    split_index,
)

SHALLOW_WEIGHT, DEEP_WEIGHT = 0.2, 1.1
"""Weights of the gaps before and from the split index on (TexQ)."""


def make_centers(
    teacher: LoadedTeacher, config: SynqSettings, folder: Path, show: bool = True
) -> list[Shard]:
    """One image per class in class order, in batches: `images` (n, C, H, W) float32, `labels` (n,).

    Minimises alpha_center_ce · CE + 1/L Σ_l w_l · gap_l at a constant learning rate. No label is
    repeated to fill a batch: repeated classes would count more in the pooled statistics.
    """
    sizes = batch_sizes(teacher.num_classes, config.batch_size)
    groups = torch.arange(teacher.num_classes).split(sizes)
    shards = []
    with progress_bar(len(sizes) * config.center_iterations, "centres", show) as bar:
        for number, labels in enumerate(groups):
            make = partial(_make_batch, teacher, config, number, labels, bar)
            shards.append(load_or_make(folder, f"centers-{number:05d}", make))
            bar.update((number + 1) * config.center_iterations - bar.n)
    return shards


def _make_batch(
    teacher: LoadedTeacher, config: SynqSettings, number: int, labels: Tensor, bar: tqdm
) -> Shard:
    noise = gaussian_pixels(teacher, len(labels), batch_generator(config.seed, "centers", number))
    canvas = Pixels(noise)
    objective = _objective(teacher, labels.to(device_of(teacher)), config.alpha_center_ce)
    descent = Descent(config.center_iterations, config.center_lr, precision=config.precision)
    with on_statistics(teacher.graph, objective) as loss:
        value = optimize(teacher, canvas, loss, descent, on_step=partial(advance, bar))
    return Shard({"images": canvas.images().detach().cpu(), "labels": labels}, value)


def _objective(teacher: LoadedTeacher, labels: Tensor, alpha: float) -> StatisticsLoss:
    target = remembered(teacher.graph)
    weights = center_weights(len(target)).to(labels.device)

    def objective(logits: Tensor, moments: list[Moments]) -> Tensor:
        gaps = (weights * layer_gaps(moments, target)).mean()
        return alpha * F.cross_entropy(logits, labels) + gaps

    return objective


def center_weights(num_layers: int) -> Tensor:
    """w_l of each layer, (L,)."""
    weights = torch.full((num_layers,), DEEP_WEIGHT)
    weights[: split_index(num_layers)] = SHALLOW_WEIGHT
    return weights


@torch.no_grad()
def center_moments(teacher: LoadedTeacher, centers: list[Shard]) -> list[Moments]:
    """Pooled statistics of all centres in the layers from the split index on."""
    parts = []
    with batch_statistics(teacher.graph) as statistics:
        for shard in centers:
            images = shard.tensors["images"].to(device_of(teacher))
            teacher(images)
            moments = in_order(teacher.graph, statistics)
            parts.append((len(images), moments[split_index(len(moments)) :]))
    return pool_moments(parts)
