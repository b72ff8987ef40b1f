"""PSAQ-ViT's synthesis (Li et al., 2022): images whose patches a transformer finds varied.

The constants are those for 32 images of 224 pixels; `Scale` takes them to other sizes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from synq_tune.config import Synthesis
from synq_tune.config.synthesis import PsaqSettings
from synq_tune.models.preprocessing import Preprocessing
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.synthesis.batches import advance, make_batches, to_half
from synq_tune.synthesis.method import GeneratedImages, Synthesizer
from synq_tune.synthesis.optimize import check_finite, device_of, seeded
from synq_tune.synthesis.patch_similarity import (
    Attention,
    attentions,
    head_means,
    similarity_entropy,
)
from synq_tune.synthesis.shards import Shard
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


def settings(config: Synthesis) -> dict[str, Any]:
    """Settings that change the result."""
    return config.part(PsaqSettings).model_dump(mode="json")


def synthesize(
    teacher: LoadedTeacher, config: Synthesis, folder: Path, show: bool
) -> GeneratedImages:
    """Minimise -alpha_pse · Σ_l entropy_l + focal_beta · CE + alpha_tv · |TV - target| over pixels.

    Two phases of half the iterations, each with a warm-up and a half-cosine of the rate; Adam keeps
    its state. In each iteration the batch is shifted, by one offset on both axes, and half the time
    mirrored where `flip` allows; pixels stay those of valid images.

    Raises:
        InputError: the teacher has no attention.
        NonFiniteLossError: the loss became NaN or infinite.
    """
    places = attentions(teacher)
    make = partial(_make_batch, teacher, config, places)
    return make_batches(config, folder, make, show)


def _make_batch(
    teacher: LoadedTeacher,
    config: Synthesis,
    places: list[Attention],
    number: int,
    size: int,
    bar: tqdm,
) -> Shard:
    generator = seeded(config.seed, "images", number)
    labels = torch.randint(teacher.num_classes, (size,), generator=generator)
    pixels = first_pixels(teacher, config.start, size, generator)
    pixels, loss = optimize(teacher, config, places, pixels, labels, generator, bar)
    return Shard({"images": to_half(pixels), "labels": labels}, loss)


def optimize(
    teacher: LoadedTeacher,
    config: Synthesis,
    places: list[Attention],
    pixels: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    bar: tqdm,
) -> tuple[Tensor, float]:
    """Lower the loss of `synthesize` for one batch.

    Args:
        teacher: frozen.
        config: iterations, learning rate and weights.
        places: of the teacher's attention.
        pixels: (N, C, H, W) to start from; they are changed.
        labels: (N,).
        generator: draws the total variation aimed at, shifts and flips.
        bar: advanced in each iteration.

    Returns:
        Optimised pixels (N, C, H, W), and the last loss.

    Raises:
        NonFiniteLossError: the loss became NaN or infinite.
    """
    labels = labels.to(device_of(teacher))
    scale = Scale(tuple(pixels.shape))
    target = scale.tv_target(float(torch.rand(1, generator=generator)))
    low, high = valid_range(teacher.preprocessing, pixels)
    pixels.requires_grad_(True)
    optimizer = torch.optim.Adam([pixels], lr=config.lr, betas=_BETAS)
    with head_means(teacher.graph, places) as means:
        for iteration in range(config.iterations):
            phase, factor = phase_of(iteration, config.iterations)
            optimizer.param_groups[0]["lr"] = config.lr * factor
            shown = shift_and_flip(pixels, scale.jitter(phase), config.flip, generator)
            logits = teacher(shown)
            varied = sum(similarity_entropy(m, len(pixels)) for m in means.values())
            loss = config.focal_beta * F.cross_entropy(logits, labels) - config.alpha_pse * varied
            loss = loss + config.alpha_tv * (total_variation(shown) - target).abs()
            (pixels.grad,) = torch.autograd.grad(loss, pixels)
            optimizer.step()
            pixels.data.clamp_(low, high)
            value = loss.item()  # the one synchronisation of an iteration
            check_finite(value, iteration, config.lr)
            advance(bar, value)
    return pixels.detach(), value


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


METHOD = Synthesizer(synthesize, settings, attentions)
