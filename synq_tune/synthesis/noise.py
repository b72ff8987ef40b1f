"""Plain noise optimisation (SynQ, Eq. 1): class loss plus BatchNorm statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from synq_tune.config import Synthesis
from synq_tune.config.synthesis import NoiseSettings
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.synthesis.batches import optimize_batches
from synq_tune.synthesis.method import GeneratedImages, Synthesizer
from synq_tune.synthesis.optimize import Objective
from synq_tune.synthesis.statistics import (
    Moments,
    has_batchnorm,
    layer_gaps,
    remembered,
    with_deviations,
)


def settings(config: Synthesis) -> dict[str, Any]:
    """Settings that change the result."""
    return config.part(NoiseSettings).model_dump(mode="json")


def synthesize(
    teacher: LoadedTeacher, config: Synthesis, folder: Path, show: bool
) -> GeneratedImages:
    """Minimise focal_beta · CE + alpha_bns · BNS over pixels, which start as `config.start` says.

    BNS = 1/L Σ_l [mean_c (m - μ)² + mean_c (s - σ)²] with standard deviations s, σ as the paper's
    Eq. 1 has them; `synq` compares variances as its released code does.

    Raises:
        InputError: the teacher has no BatchNorm.
    """
    target = with_deviations(remembered(teacher.graph))

    def objective_of(labels: Tensor) -> Objective:
        def objective(logits: Tensor, moments: list[Moments]) -> Tensor:
            statistics = layer_gaps(with_deviations(moments), target).mean()
            return config.focal_beta * F.cross_entropy(logits, labels) + (
                config.alpha_bns * statistics
            )

        return objective

    return optimize_batches(teacher, config, folder, objective_of, show=show)


METHOD = Synthesizer(synthesize, settings, has_batchnorm)
