"""SynQ's synthesis (appendix D): calibration centres, then images drawn towards them.

The third stage, the perturbation against a student, depends on the bits and is in
`perturbation.py`, so that studies at different bits share what is made here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from synq_tune.config.synthesis import SynqSettings
from synq_tune.data.augment import crop_and_flip, random_boxes
from synq_tune.graph.classifier import features_read
from synq_tune.synthesis.band import ClassMeans, band_loss
from synq_tune.synthesis.batches import batch_sizes
from synq_tune.synthesis.centers import center_moments, make_centers
from synq_tune.synthesis.focal import focal_cross_entropy
from synq_tune.synthesis.method import Batch, Objective, SynthesisMethod, Work
from synq_tune.synthesis.optimize import Loss
from synq_tune.synthesis.soft_target import draw_targets, soft_target_loss
from synq_tune.synthesis.statistics import (
    Moments,
    StatisticsLoss,
    layer_gaps,
    layered_loss,
    on_statistics,
    remembered,
    with_deviations,
)


def objective(work: Work) -> Objective:
    """alpha_bns · BNS + focal_beta · class loss + alpha_layered · layered BNS, behind the centres;
    + alpha_band · the band of `band.py`, where that is on.

    BNS = 1/L Σ_l [mean_c (m - μ)² + mean_c (v - σ²)²] with variances, as in the released code, or
    with standard deviations where `spread` says so; the centres' always with variances.

    Raises:
        InputError: the teacher has no BatchNorm, or with a band no classifier.
    """
    graph, config, target = work.teacher.graph, work.config, remembered(work.teacher.graph)
    centers, moments = [], []
    if config.alpha_layered > 0:  # they are one image a class: ImageNet's take hours
        centers = make_centers(work.teacher, config, work.folder, work.show)
        moments = center_moments(work.teacher, centers)
    means = ClassMeans(work.teacher, work.folder) if config.alpha_band > 0 else None

    def loss_of(batch: Batch) -> AbstractContextManager[Loss]:
        own = synq_objective(config, target, moments, batch.labels, soft_targets(config, batch))
        block = on_statistics(graph, own)
        return block if means is None else _with_band(block, means, config, batch.labels)

    return Objective(loss_of, {"center_losses": [shard.loss for shard in centers]})


def soft_targets(config: SynqSettings, batch: Batch) -> Tensor | None:
    """The probabilities (N,) that a batch's images are drawn to; None: as near to 1 as they can."""
    if config.soft_target is None:
        return None
    targets = draw_targets(batch.count, config.soft_target, batch.generator)
    return targets.to(batch.labels.device)


def synq_objective(
    config: SynqSettings,
    target: list[Moments],
    centers: list[Moments],
    labels: Tensor,
    targets: Tensor | None = None,
) -> StatisticsLoss:
    """The loss of a batch with these labels (N,), and `soft_targets` (N,) if there are any."""

    is_rooted = config.spread == "deviation"
    aim = with_deviations(target) if is_rooted else target

    def objective(logits: Tensor, moments: list[Moments]) -> Tensor:
        compared = with_deviations(moments) if is_rooted else moments
        loss = config.alpha_bns * layer_gaps(compared, aim).mean()
        loss = loss + config.focal_beta * _class_loss(logits, labels, targets, config.focal_gamma)
        if config.alpha_layered > 0:
            loss = loss + config.alpha_layered * layered_loss(moments, centers)
        return loss

    return objective


def _class_loss(logits: Tensor, labels: Tensor, targets: Tensor | None, gamma: float) -> Tensor:
    if targets is None:
        return focal_cross_entropy(logits, labels, gamma)
    return soft_target_loss(logits, labels, targets, gamma)


@contextmanager
def _with_band(
    block: AbstractContextManager[Loss], means: ClassMeans, config: SynqSettings, labels: Tensor
) -> Iterator[Loss]:
    """The block's loss and alpha_band · the band's."""
    known = means.means()
    with block as other, features_read(means.layer) as features:

        def loss(shown: Tensor, logits: Tensor) -> Tensor:
            band = band_loss(features[0], labels, known, config.band_limits)
            return other(shown, logits) + config.alpha_band * band

        yield loss


def _more_steps(config: SynqSettings, num_classes: int) -> int:
    """Those of the centres, and with a band each finished batch once more."""
    steps = 0
    if config.alpha_layered > 0:
        steps += len(batch_sizes(num_classes, config.batch_size)) * config.center_iterations
    if config.alpha_band > 0:
        steps += len(batch_sizes(config.num_images + config.num_holdout, config.batch_size)) - 1
    return steps


def crops(
    images: Tensor, iteration: int, generator: torch.Generator, config: SynqSettings
) -> Tensor:
    """In some iterations random crops, and mirrored ones where allowed; else the images."""
    if config.crop_scale is None or torch.rand(1, generator=generator) >= config.crop_probability:
        return images
    boxes = random_boxes(len(images), config.crop_scale, generator)
    flips = (torch.rand(len(images), generator=generator) < 0.5) & config.flip
    return crop_and_flip(images, boxes, flips)


METHOD = SynthesisMethod(
    settings=SynqSettings,
    needs=("batchnorm", "labels"),
    objective=objective,
    look=crops,
    is_perturbed=True,
    objective_steps=_more_steps,
)
