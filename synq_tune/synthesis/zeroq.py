"""ZeroQ's synthesis (Cai et al., CVPR 2020): each image by itself has the teacher's statistics.

No labels are asked for; the teacher gives each image its own. Pixels start from N(0, 1): the
released code's first ones are 73 times smaller, as it divides by a variance.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

from torch import Tensor

from synq_tune.config.synthesis import ZeroqSettings
from synq_tune.graph.batchnorm import batchnorm_layers
from synq_tune.synthesis.image_statistics import image_prior, image_statistics
from synq_tune.synthesis.method import Batch, Objective, SynthesisMethod, Work
from synq_tune.synthesis.optimize import Loss
from synq_tune.synthesis.statistics import Moments, remembered, with_deviations

_EPS = 1e-6


def objective(work: Work) -> Objective:
    """1/N Σ_{l,n,c} [(m - μ)² + (s - σ)²] + alpha_prior · the prior on each image.

    Layers and channels are added up, images averaged; s are deviations, or variances where `spread`
    says so.

    Raises:
        InputError: the teacher has no BatchNorm.
    """
    return Objective(partial(_loss_of, work, remembered(work.teacher.graph)))


@contextlib.contextmanager
def _loss_of(work: Work, target: list[Moments], batch: Batch) -> Iterator[Loss]:
    graph, config = work.teacher.graph, work.config
    with image_statistics(graph) as statistics:

        def loss(shown: Tensor, logits: Tensor) -> Tensor:
            moments = [statistics[layer] for layer in batchnorm_layers(graph)]
            return gaps(moments, target, config) + config.alpha_prior * image_prior(shown)

        yield loss


def gaps(moments: list[Moments], target: list[Moments], config: ZeroqSettings) -> Tensor:
    """The images' distance from what is remembered, a scalar.

    Args:
        moments: mean and variance of each layer, (N, C) each.
        target: the same, (C,) each.
        config: `spread` says what is compared beside the means.
    """
    if config.spread == "deviation":
        moments, target = with_deviations(moments, _EPS), with_deviations(target, _EPS)
    squares = [
        (a - b).square().sum() / len(a)
        for layer, aim in zip(moments, target, strict=True)
        for a, b in zip(layer, aim, strict=True)
    ]
    return sum(squares)


METHOD = SynthesisMethod(settings=ZeroqSettings, needs=("batchnorm",), objective=objective)
