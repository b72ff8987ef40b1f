"""Images of a class that are alike, but not the same (IntraQ's marginal distance).

A class's mean is that of the features of its images in all finished batches: it is asked of what
was stored, so that a run that was stopped goes on bit for bit.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synq_tune.errors import InputError
from synq_tune.graph.classifier import features_read, last_layer
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.synthesis.batches import batch_name
from synq_tune.synthesis.optimize import device_of
from synq_tune.synthesis.shards import Shard, finished


class ClassMeans:
    """Mean feature of each class over the batches that are finished."""

    def __init__(self, teacher: LoadedTeacher, folder: Path) -> None:
        """Know no image yet.

        Args:
            teacher: frozen; its features are what its last layer reads.
            folder: of the finished batches.

        Raises:
            InputError: the teacher's last layer gives no logits.
        """
        self.layer = _classifier(teacher)
        self._teacher, self._folder = teacher, folder
        self._batches = 0
        self._sums: Tensor | None = None
        self._counts = torch.zeros(teacher.num_classes, device=device_of(teacher))

    def means(self) -> tuple[Tensor, Tensor] | None:
        """((K, D) means, (K,) whether a class has any image); None where no batch is finished."""
        while (shard := finished(self._folder, batch_name(self._batches))) is not None:
            self._add(shard)
            self._batches += 1
        if self._sums is None:
            return None
        return self._sums / self._counts.clamp_min(1)[:, None], self._counts > 0

    @torch.no_grad()
    def _add(self, shard: Shard) -> None:
        device = device_of(self._teacher)
        labels = shard.tensors["labels"].to(device)
        with features_read(self.layer) as features:
            self._teacher(shard.tensors["images"].to(device).float())
        shares = F.one_hot(labels, self._teacher.num_classes).float()
        sums = shares.T @ features[0]
        self._sums = sums if self._sums is None else self._sums + sums
        self._counts += shares.sum(0)


def _classifier(teacher: LoadedTeacher) -> nn.Module:
    layer = last_layer(teacher.graph)
    if layer is None or len(layer.weight) != teacher.num_classes:
        raise InputError(
            "`the teacher's last layer gives the logits` must hold with alpha_band, but got "
            f"{None if layer is None else tuple(layer.weight.shape)}. Set synthesis.alpha_band=0."
        )
    return layer


def band_loss(
    features: Tensor,
    labels: Tensor,
    means: tuple[Tensor, Tensor] | None,
    limits: tuple[float, float],
) -> Tensor:
    """mean_i [relu(low - d_i) + relu(d_i - high)] with d = 1 - cos(features, the class's mean).

    Args:
        features: (N, D), differentiated through.
        labels: (N,) int64.
        means: as `ClassMeans.means` gives them; images of classes that have none do not count.
        limits: (low, high), in [0, 2].

    Returns:
        Scalar; 0 where no image counts.
    """
    if means is None:
        return features.new_zeros(())
    of_class, is_known = means
    low, high = limits
    distance = 1 - F.cosine_similarity(features, of_class[labels], dim=1)
    outside = (low - distance).relu() + (distance - high).relu()
    counts = is_known[labels]
    return (outside * counts).sum() / counts.sum().clamp_min(1)
