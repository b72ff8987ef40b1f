"""Optimise the pixels of one batch against the teacher."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from synq_tune.errors import NonFiniteLossError
from synq_tune.graph.batchnorm import batch_statistics
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.synthesis.statistics import Moments, in_order

Objective = Callable[[Tensor, list[Moments]], Tensor]
"""(logits (N, K), statistics of every layer) → scalar loss."""


@dataclass(frozen=True)
class Descent:
    """Adam's settings."""

    iterations: int
    lr: float
    lr_patience: int | None = None
    """Iterations without a lower loss before the rate falls tenfold; None keeps it."""
    min_lr: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the teacher computes in; pixels, statistics and losses are float32."""


def seeded(seed: int, stage: str, number: int) -> torch.Generator:
    """The CPU generator of one batch: the same whatever ran before it, on every device."""
    digest = hashlib.sha256(f"{seed}/{stage}/{number}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7]))


def device_of(teacher: LoadedTeacher) -> torch.device:
    """Where the teacher lives."""
    return next(teacher.graph.parameters()).device


def gaussian_pixels(teacher: LoadedTeacher, count: int, generator: torch.Generator) -> Tensor:
    """N(0, 1) noise (count, C, H, W), drawn on the CPU, on the teacher's device."""
    noise = torch.randn(count, *teacher.preprocessing.shape, generator=generator)
    return noise.to(device_of(teacher))


def optimize_pixels(
    teacher: LoadedTeacher,
    pixels: Tensor,
    objective: Objective,
    descent: Descent,
    look: Callable[[Tensor], Tensor] = lambda images: images,
    on_step: Callable[[float], None] = lambda loss: None,
) -> tuple[Tensor, float]:
    """Lower the objective with Adam; the teacher stays as it is.

    Args:
        teacher: frozen; gradients flow through it to the pixels only.
        pixels: (N, C, H, W) float32 to start from, left unchanged.
        objective: scalar of logits and statistics.
        descent: iterations and learning rate.
        look: what is shown to the teacher in place of the pixels, drawn anew each iteration.
        on_step: called with the loss after each iteration.

    Returns:
        Optimised pixels, and the loss of the last iteration.

    Raises:
        NonFiniteLossError: the loss became NaN or infinite.
    """
    pixels = pixels.clone(memory_format=torch.contiguous_format).requires_grad_(True)
    optimizer = torch.optim.Adam([pixels], lr=descent.lr, fused=True)
    schedule = _plateau(optimizer, descent)
    is_reduced = descent.precision == "bfloat16"
    with batch_statistics(teacher.graph) as statistics:
        for iteration in range(descent.iterations):
            shown = look(pixels)
            with torch.autocast(shown.device.type, torch.bfloat16, enabled=is_reduced):
                logits = teacher(shown)
            loss = objective(logits.float(), in_order(teacher.graph, statistics))
            (gradient,) = torch.autograd.grad(loss, pixels)
            # The fused step reads memory in order, whatever strides the network's first layer left.
            pixels.grad = gradient.contiguous()
            optimizer.step()
            value = loss.item()  # the one synchronisation of an iteration
            check_finite(value, iteration, descent.lr)
            schedule(value)
            on_step(value)
    return pixels.detach(), value


def _plateau(optimizer: torch.optim.Optimizer, descent: Descent) -> Callable[[float], None]:
    if descent.lr_patience is None:
        return lambda loss: None
    return ReduceLROnPlateau(
        optimizer, factor=0.1, patience=descent.lr_patience, min_lr=descent.min_lr
    ).step


def check_finite(loss: float, iteration: int, lr: float) -> None:
    """Raise NonFiniteLossError for a loss that is none."""
    if not math.isfinite(loss):
        raise NonFiniteLossError(f"synthesis loss is {loss} at iteration {iteration} (lr={lr}).")
