"""PSAQ-ViT's synthesis (Li et al., 2022): images whose patches a transformer finds varied.

The constants are those for 32 images of 224 pixels; `Scale` takes them to other sizes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from synq_tune.config.synthesis import PsaqSettings
from synq_tune.models.preprocessing import Preprocessing
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.synthesis.canvas import Canvas, Pixels
from synq_tune.synthesis.method import Batch, Objective, SynthesisMethod, Work
from synq_tune.synthesis.optimize import Descent, Loss, Schedule
from synq_tune.synthesis.patch_similarity import (
    Attention,
    attentions,
    head_means,
    similarity_entropy,
)
from synq_tune.synthesis.start import first_pixels

PHASES = (15, 30)
"""Largest jitter in pixels, of 224, in each half of the iterations."""
_TV_TARGET = (2500.0, 3000.0)
_WARMUP = 0.2
_BETAS = (0.5, 0.9)


@dataclass(frozen=True)
class Scale:
    """PSAQ's constants for images (N, C, H, W)."""

    shape: tuple[int, int, int, int]

    def jitter(self, phase: int) -> int:
        """Largest shift in pixels."""
        return round(PHASES[phase] * self.shape[2] / 224)

    def tv_target(self, share: float) -> float:
        """The total variation to reach; `share` in [0, 1] chooses within 2500 … 3000.

        A norm over the batch grows with the root of its number of values.
        """
        low, high = _TV_TARGET
        return (low + (high - low) * share) * math.sqrt(math.prod(self.shape) / (32 * 3 * 224**2))


def canvas(
    teacher: LoadedTeacher, config: PsaqSettings, count: int, generator: torch.Generator
) -> Canvas:
    """Pixels that stay those of valid images behind each step."""
    pixels = first_pixels(teacher, config.start, count, generator)
    return Pixels(pixels, valid_range(teacher.preprocessing, pixels))


def objective(work: Work) -> Objective:
    """-alpha_pse · Σ_l entropy_l + focal_beta · CE + alpha_tv · |TV - target|.

    Raises:
        InputError: the teacher has no attention.
    """
    return Objective(partial(_loss, work, attentions(work.teacher)))


@contextmanager
def _loss(work: Work, places: list[Attention], batch: Batch) -> Iterator[Loss]:
    config, count = work.config, batch.count
    scale = Scale((count, *work.teacher.preprocessing.shape))
    target = scale.tv_target(float(torch.rand(1, generator=batch.generator)))
    with head_means(work.teacher.graph, places) as means:

        def loss(shown: Tensor, logits: Tensor) -> Tensor:
            varied = sum(similarity_entropy(m, count) for m in means.values())
            ce = F.cross_entropy(logits, batch.labels)
            total = config.focal_beta * ce - config.alpha_pse * varied
            return total + config.alpha_tv * (total_variation(shown) - target).abs()

        yield loss


def descent(config: PsaqSettings) -> Descent:
    """Two phases of half the iterations, each with a warm-up and a half-cosine; Adam keeps its
    state."""
    # Not fused: it rounds otherwise, and the same settings shall give the same images as ever.
    schedule = partial(_two_phases, iterations=config.iterations)
    return Descent(config.iterations, config.lr, schedule, betas=_BETAS, is_fused=False)


def _two_phases(optimizer: torch.optim.Optimizer, iterations: int) -> Schedule:
    rates = [group["lr"] for group in optimizer.param_groups]

    def schedule(iteration: int, loss: float | None) -> None:
        _, factor = phase_of(iteration, iterations)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor

    return schedule


def jittered(
    images: Tensor, iteration: int, generator: torch.Generator, config: PsaqSettings
) -> Tensor:
    """The batch shifted by one offset on both axes, and half the time mirrored where `flip`
    allows."""
    phase, _ = phase_of(iteration, config.iterations)
    return shift_and_flip(images, Scale(tuple(images.shape)).jitter(phase), config.flip, generator)


def valid_range(preprocessing: Preprocessing, like: Tensor) -> tuple[Tensor, Tensor]:
    """Black and white of each channel in normalised pixels, (1, C, 1, 1) each."""
    black = torch.zeros(1, preprocessing.channels, 1, 1, device=like.device)
    return preprocessing.normalize(black), preprocessing.normalize(black + 1)


def phase_of(iteration: int, iterations: int) -> tuple[int, float]:
    """(0 or 1, share of the learning rate) of an iteration."""
    half = -(-iterations // 2)
    phase, done = divmod(iteration, half)
    length = half if phase == 0 else iterations - half
    warmup = max(1, round(_WARMUP * length))
    if done < warmup:
        return phase, (done + 1) / warmup
    return phase, 0.5 * (1 + math.cos(math.pi * (done - warmup) / (length - warmup)))


def shift_and_flip(pixels: Tensor, jitter: int, flip: bool, generator: torch.Generator) -> Tensor:
    """The whole batch rolled by one offset in ±jitter on both axes, and mirrored half the time."""
    offset = int(torch.randint(-jitter, jitter + 1, (1,), generator=generator))
    mirrored = torch.rand(1, generator=generator).item() < 0.5 and flip
    shifted = pixels.roll((offset, offset), (2, 3))
    return shifted.flip(3) if mirrored else shifted


def total_variation(pixels: Tensor) -> Tensor:
    """Norms over the batch of the differences to the four neighbours, added up."""
    differences = (
        pixels[..., :, 1:] - pixels[..., :, :-1],
        pixels[..., 1:, :] - pixels[..., :-1, :],
        pixels[..., 1:, 1:] - pixels[..., :-1, :-1],
        pixels[..., 1:, :-1] - pixels[..., :-1, 1:],
    )
    return sum(torch.linalg.vector_norm(d) for d in differences)


METHOD = SynthesisMethod(
    settings=PsaqSettings,
    needs=("attention", "labels"),
    objective=objective,
    canvas=canvas,
    descent=descent,
    look=jittered,
)
