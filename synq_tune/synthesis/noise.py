"""Plain noise optimisation (SynQ, Eq. 1): class loss plus BatchNorm statistics."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch.nn.functional as F
from torch import Tensor

from synq_tune.config.synthesis import NoiseSettings
from synq_tune.synthesis.method import Batch, Objective, SynthesisMethod, Work
from synq_tune.synthesis.optimize import Loss
from synq_tune.synthesis.statistics import (
    Moments,
    layer_gaps,
    on_statistics,
    remembered,
    with_deviations,
)


def objective(work: Work) -> Objective:
    """focal_beta · CE + alpha_bns · BNS.

    BNS = 1/L Σ_l [mean_c (m - μ)² + mean_c (s - σ)²] with standard deviations s, σ as the paper's
    Eq. 1 has them; `synq` compares variances as its released code does.

    Raises:
        InputError: the teacher has no BatchNorm.
    """
    graph, config = work.teacher.graph, work.config
    target = with_deviations(remembered(graph))

    def loss_of(batch: Batch) -> AbstractContextManager[Loss]:
        def loss(logits: Tensor, moments: list[Moments]) -> Tensor:
            statistics = layer_gaps(with_deviations(moments), target).mean()
            return config.focal_beta * F.cross_entropy(logits, batch.labels) + (
                config.alpha_bns * statistics
            )

        return on_statistics(graph, loss)

    return Objective(loss_of)


METHOD = SynthesisMethod(settings=NoiseSettings, needs=("batchnorm", "labels"), objective=objective)
