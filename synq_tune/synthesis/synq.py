"""SynQ's synthesis (appendix D): calibration centres, then images drawn towards them.

The third stage, the perturbation against a student, depends on the bits and is in
`perturbation.py`, so that studies at different bits share what is made here.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from synq_tune.config import Synthesis
from synq_tune.config.synthesis import SynqSettings
from synq_tune.data.augment import crop_and_flip, random_boxes
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.synthesis.batches import optimize_batches
from synq_tune.synthesis.centers import center_moments, make_centers
from synq_tune.synthesis.focal import focal_cross_entropy
from synq_tune.synthesis.method import GeneratedImages, Synthesizer
from synq_tune.synthesis.optimize import Objective
from synq_tune.synthesis.statistics import (
    Moments,
    has_batchnorm,
    layer_gaps,
    layered_loss,
    remembered,
)


def settings(config: Synthesis) -> dict[str, Any]:
    """Settings that change the result."""
    return config.part(SynqSettings).model_dump(mode="json")


def synthesize(
    teacher: LoadedTeacher, config: Synthesis, folder: Path, show: bool
) -> GeneratedImages:
    """Minimise alpha_bns · BNS + focal_beta · focal CE + alpha_layered · layered BNS over pixels.

    BNS = 1/L Σ_l [mean_c (m - μ)² + mean_c (v - σ²)²] with variances, as in the released code.

    Raises:
        InputError: the teacher has no BatchNorm.
    """
    remembered_moments = remembered(teacher.graph)
    centers = make_centers(teacher, config, folder, show)
    objective_of = partial(
        synq_objective, config, remembered_moments, center_moments(teacher, centers)
    )
    draft = optimize_batches(
        teacher, config, folder, objective_of, partial(_look, config=config), show
    )
    losses = {"center_losses": [shard.loss for shard in centers]}
    return GeneratedImages(draft.images, draft.labels, {**draft.notes, **losses})


def synq_objective(
    config: Synthesis, target: list[Moments], centers: list[Moments], labels: Tensor
) -> Objective:
    """The loss of a batch with these labels (N,)."""

    def objective(logits: Tensor, moments: list[Moments]) -> Tensor:
        return (
            config.alpha_bns * layer_gaps(moments, target).mean()
            + config.focal_beta * focal_cross_entropy(logits, labels, config.focal_gamma)
            + config.alpha_layered * layered_loss(moments, centers)
        )

    return objective


def _look(images: Tensor, generator: torch.Generator, config: Synthesis) -> Tensor:
    """In some iterations random crops, and mirrored ones where allowed; else the images."""
    if config.crop_scale is None or torch.rand(1, generator=generator) >= config.crop_probability:
        return images
    boxes = random_boxes(len(images), config.crop_scale, generator)
    flips = (torch.rand(len(images), generator=generator) < 0.5) & config.flip
    return crop_and_flip(images, boxes, flips)


METHOD = Synthesizer(synthesize, settings, has_batchnorm)
