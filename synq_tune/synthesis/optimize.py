"""The one loop: lower a loss that the teacher's answers decide, whatever makes the images."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from synq_tune.errors import NonFiniteLossError
from synq_tune.models.teacher import LoadedTeacher

if TYPE_CHECKING:
    from synq_tune.synthesis.canvas import Canvas

Loss = Callable[[Tensor, Tensor], Tensor]
"""(images shown to the teacher (N, C, H, W), its logits (N, K) float32) → scalar loss."""
Schedule = Callable[[int, float | None], None]
"""Called before each iteration with its number and the loss of the one before, to set the rates."""


def constant(optimizer: torch.optim.Optimizer) -> Schedule:
    """The rates stay as they are."""
    return lambda iteration, loss: None


@dataclass(frozen=True)
class Descent:
    """Adam's settings."""

    iterations: int
    lr: float
    schedule: Callable[[torch.optim.Optimizer], Schedule] = constant
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the teacher computes in; images, statistics and losses are float32."""
    betas: tuple[float, float] = (0.9, 0.999)
    is_fused: bool = True
    """The fused step is faster and rounds in another order."""

    def optimizer(self, parameters: list[Any]) -> torch.optim.Adam:
        """Adam over tensors, or over groups with rates of their own."""
        return torch.optim.Adam(
            parameters, lr=self.lr, betas=self.betas, fused=True if self.is_fused else None
        )


def plateau_descent(config: Any) -> Descent:
    """What PlateauSettings, PrecisionSettings and CanvasSettings say."""
    schedule = partial(plateau, patience=config.lr_patience, min_lr=config.min_lr)
    return Descent(config.iterations, config.lr, schedule, config.precision)


def plateau(optimizer: torch.optim.Optimizer, patience: int, min_lr: float) -> Schedule:
    """Tenfold lower after `patience` iterations without a lower loss."""
    rate = ReduceLROnPlateau(optimizer, factor=0.1, patience=patience, min_lr=min_lr)
    return lambda iteration, loss: None if loss is None else rate.step(loss)


def device_of(teacher: LoadedTeacher) -> torch.device:
    """Where the teacher lives."""
    return next(teacher.graph.parameters()).device


def gaussian_pixels(
    teacher: LoadedTeacher,
    count: int,
    generator: torch.Generator,
    shape: tuple[int, int, int] | None = None,
) -> Tensor:
    """N(0, 1) noise (count, C, H, W), drawn on the CPU, on the teacher's device.

    Args:
        teacher: says the shape, where none is given.
        count: number of images.
        generator: on the CPU.
        shape: (C, H, W).
    """
    noise = torch.randn(count, *(shape or teacher.preprocessing.shape), generator=generator)
    return noise.to(device_of(teacher))


@contextlib.contextmanager
def seeded_torch(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's own generators inside the block and leave them as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def optimize(
    teacher: LoadedTeacher,
    canvas: Canvas,
    loss: Loss,
    descent: Descent,
    look: Callable[[Tensor, int], Tensor] = lambda images, iteration: images,
    on_step: Callable[[float], None] = lambda loss: None,
) -> float:
    """Lower the loss of a canvas's images with Adam; the teacher stays as it is.

    Args:
        teacher: frozen; gradients flow through it to the canvas only.
        canvas: one batch; it is changed.
        loss: scalar of the images shown and of their logits.
        descent: iterations, learning rate and its schedule.
        look: (images, iteration) → what the teacher is shown in their place.
        on_step: called with the loss after each iteration.

    Returns:
        The loss of the last iteration.

    Raises:
        NonFiniteLossError: the loss became NaN or infinite.
    """
    optimizer = descent.optimizer(canvas.parameters())
    schedule, value = descent.schedule(optimizer), None
    for iteration in range(descent.iterations):
        schedule(iteration, value)
        shown = look(canvas.shown(), iteration)
        with torch.autocast(shown.device.type, torch.bfloat16, descent.precision == "bfloat16"):
            logits = teacher(shown)
        total = loss(shown, logits.float())
        _step(optimizer, total)
        canvas.after_step()
        value = total.item()  # the one synchronisation of an iteration
        check_finite(value, iteration, descent.lr)
        on_step(value)
    return value


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = torch.autograd.grad(loss, parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        # The fused step reads memory in order, whatever strides the network's first layer left.
        parameter.grad = gradient.contiguous()
    optimizer.step()


def check_finite(loss: float, iteration: int, lr: float) -> None:
    """Raise NonFiniteLossError for a loss that is none."""
    if not math.isfinite(loss):
        raise NonFiniteLossError(f"synthesis loss is {loss} at iteration {iteration} (lr={lr}).")
