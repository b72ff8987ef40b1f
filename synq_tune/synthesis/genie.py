"""GENIE-D (Jeon et al., CVPR 2023): latents and a generator drawn to the teacher's statistics.

No labels are asked for; the teacher gives each image its own. A batch's images are those behind its
last step, where the released code keeps those in front of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from synq_tune.config.synthesis import GenieSettings
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.notes import say
from synq_tune.synthesis.generator import Generated, generator_bytes, made_size
from synq_tune.synthesis.image_statistics import image_prior
from synq_tune.synthesis.method import Batch, Objective, SynthesisMethod, Work
from synq_tune.synthesis.optimize import Descent, Loss, Schedule, plateau
from synq_tune.synthesis.statistics import (
    Moments,
    layer_gaps,
    on_statistics,
    remembered,
    with_deviations,
)
from synq_tune.synthesis.swing import swinging

_EPS = 1e-6
"""Under the layers' roots, as in the released code's remembered deviations."""


def objective(work: Work) -> Objective:
    """Σ_l [mean_c (m - μ)² + mean_c (s - σ)²] + alpha_prior · the prior on each image.

    Layers are added up, not averaged; deviations s have Bessel's correction, as σ does.

    Raises:
        InputError: the teacher has no BatchNorm.
    """
    target = with_deviations(remembered(work.teacher.graph), _EPS)
    shape = work.teacher.preprocessing.shape
    size = made_size(shape)
    if size != shape[1:]:
        made, kept = ("{}×{}".format(*pair) for pair in (size, shape[1:]))
        say(f"synthesis: images are made at {made}, which 4 divides, and cropped to {kept}.")
    return Objective(partial(_loss_of, work, target), {"made_at": list(size)})


@contextlib.contextmanager
def _loss_of(work: Work, target: list[Moments], batch: Batch) -> Iterator[Loss]:
    graph, config = work.teacher.graph, work.config

    def gaps(logits: Tensor, moments: list[Moments]) -> Tensor:
        return layer_gaps(with_deviations(moments, _EPS), target).sum()

    swing = swinging(graph, batch.generator) if config.swing else contextlib.nullcontext()
    with swing, on_statistics(graph, gaps, correction=1) as statistics:

        def loss(shown: Tensor, logits: Tensor) -> Tensor:
            return statistics(shown, logits) + config.alpha_prior * image_prior(shown)

        yield loss


def descent(config: GenieSettings) -> Descent:
    """Adam with two rates: the latents' falls where the loss does not, the generator's steadily."""
    schedule = partial(_two_rates, config=config)
    return Descent(config.iterations, config.lr_latent, schedule, config.precision)


def _two_rates(optimizer: torch.optim.Optimizer, config: GenieSettings) -> Schedule:
    _, weights = optimizer.param_groups
    slow = plateau(optimizer, config.lr_patience, config.min_lr)

    def schedule(iteration: int, loss: float | None) -> None:
        slow(iteration, loss)
        # Set in each iteration: a plateau slows both groups.
        decays = iteration // config.generator_decay_every
        weights["lr"] = config.lr_generator * config.generator_decay**decays

    return schedule


def _memory(teacher: LoadedTeacher, config: GenieSettings) -> int:
    return generator_bytes(teacher.preprocessing.shape, config, config.batch_size)


METHOD = SynthesisMethod(
    settings=GenieSettings,
    needs=("batchnorm",),
    objective=objective,
    canvas=Generated,
    descent=descent,
    canvas_bytes=_memory,
)
