"""SynQ's synthesis (appendix D): calibration centres, then images drawn towards them.

The third stage, the perturbation against a student, depends on the bits and is in
`perturbation.py`, so that studies at different bits share what is made here.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from synq_tune.config.synthesis import SynqSettings
from synq_tune.data.augment import crop_and_flip, random_boxes
from synq_tune.synthesis.batches import batch_sizes
from synq_tune.synthesis.centers import center_moments, make_centers
from synq_tune.synthesis.focal import focal_cross_entropy
from synq_tune.synthesis.method import Batch, Objective, SynthesisMethod, Work
from synq_tune.synthesis.optimize import Loss
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
    """alpha_bns · BNS + focal_beta · focal CE + alpha_layered · layered BNS, behind the centres.

    BNS = 1/L Σ_l [mean_c (m - μ)² + mean_c (v - σ²)²] with variances, as in the released code, or
    with standard deviations where `spread` says so; the centres' always with variances.

    Raises:
        InputError: the teacher has no BatchNorm.
    """
    graph, target = work.teacher.graph, remembered(work.teacher.graph)
    centers, moments = [], []
    if work.config.alpha_layered > 0:  # they are one image a class: ImageNet's take hours
        centers = make_centers(work.teacher, work.config, work.folder, work.show)
        moments = center_moments(work.teacher, centers)

    def loss_of(batch: Batch) -> AbstractContextManager[Loss]:
        return on_statistics(graph, synq_objective(work.config, target, moments, batch.labels))

    return Objective(loss_of, {"center_losses": [shard.loss for shard in centers]})


def synq_objective(
    config: SynqSettings, target: list[Moments], centers: list[Moments], labels: Tensor
) -> StatisticsLoss:
    """The loss of a batch with these labels (N,)."""

    is_rooted = config.spread == "deviation"
    aim = with_deviations(target) if is_rooted else target

    def objective(logits: Tensor, moments: list[Moments]) -> Tensor:
        compared = with_deviations(moments) if is_rooted else moments
        loss = config.alpha_bns * layer_gaps(compared, aim).mean()
        loss = loss + config.focal_beta * focal_cross_entropy(logits, labels, config.focal_gamma)
        if config.alpha_layered > 0:
            loss = loss + config.alpha_layered * layered_loss(moments, centers)
        return loss

    return objective


def _center_steps(config: SynqSettings, num_classes: int) -> int:
    if config.alpha_layered == 0:
        return 0
    return len(batch_sizes(num_classes, config.batch_size)) * config.center_iterations


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
    objective_steps=_center_steps,
)
