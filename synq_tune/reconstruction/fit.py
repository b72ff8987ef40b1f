"""One part fitted to the teacher's: rounding and steps learn together (Genie, GENIE-M)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from synq_tune.config import Reconstruct
from synq_tune.quantization.learned_rounding import SoftBits
from synq_tune.quantization.learned_scale import LearnedScale
from synq_tune.quantization.mixed import mixed
from synq_tune.quantization.student import activation_quantizers, calibrate, weight_layers
from synq_tune.reconstruction.cache import Cache
from synq_tune.reconstruction.drop import ElementDrop
from synq_tune.reconstruction.parts import Part
from synq_tune.seeds import derive_seed

_CALIBRATED_ON = 256
"""Images that a part's grids are found on again, once the parts in front of it are done."""
_LARGEST_RATE = 0.01
"""Of a step, relative to itself: rates are absolute, and a layer of tiny weights would jump."""
_REPORTED = 0.1
"""Share of the updates, the last ones, whose loss is reported."""


def fit(
    part: Part,
    exact: Cache,
    given: Cache,
    target: Cache,
    config: Reconstruct,
    seed: int,
    advance: Callable[[Tensor], None] = lambda loss: None,
) -> float:
    """Fit one part in place; afterwards its rounding is hard.

    Args:
        part: calibrated, its weights not fitted yet.
        exact: what the teacher's part reads, for all images.
        given: what the student's reads.
        target: what the teacher's part gives.
        config: rates, counts and weights.
        seed: of the order of images and of what is dropped.
        advance: told the loss of each update.

    Returns:
        Mean reconstruction loss of the last tenth of the updates.
    """
    soft = soften(part.student)
    _calibrate(part.student, given, config.batch_size)
    drop = ElementDrop(config.drop_probability, derive_seed("drop", seed), given.device)
    rows = mini_batches(len(given), config.batch_size, derive_seed("rows", seed))
    optimizer = _optimizer(part.student, soft, config)
    learned = [p for group in optimizer.param_groups for p in group["params"]]
    reported, first = torch.zeros((), device=given.device), _first_reported(config.iterations)
    with _dropping(part.student, drop):
        for number in range(config.iterations):
            loss = _loss(part, exact, given, target, next(rows), drop)
            penalty = rounding_penalty(soft, number / config.iterations, config)
            (loss if penalty is None else loss + penalty).backward(inputs=learned)
            _set_rates(optimizer, number / config.iterations)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if number >= first:
                reported += loss.detach()
            advance(loss.detach())
    harden(part.student, config.free_weights)
    return float(reported) / (config.iterations - first)


def _first_reported(iterations: int) -> int:
    return min(iterations - 1, int(iterations * (1 - _REPORTED)))


def soften(module: nn.Module) -> list[SoftBits]:
    """Let the rounding of every layer learn."""
    return [layer.weight_quantizer.soften(layer.weight) for layer in weight_layers(module).values()]


def harden(module: nn.Module, free_weights: bool) -> None:
    """Choose each weight's code; with `free_weights` the weight takes that value and is free."""
    for layer in weight_layers(module).values():
        layer.weight_quantizer.harden()
        if free_weights:
            layer.weight_quantizer.release(layer.weight)


def _calibrate(module: nn.Module, given: Cache, size: int) -> None:
    """Find the grids of values anew, on what the finished parts in front now give."""
    for grid in activation_quantizers(module).values():
        grid.forget()
    starts = range(0, min(len(given), _CALIBRATED_ON), size)
    calibrate(module, (given.rows(slice(start, start + size)) for start in starts))


@contextlib.contextmanager
def _dropping(module: nn.Module, drop: ElementDrop) -> Iterator[None]:
    """Inside the block grids of values leave what `drop` draws as it is."""
    grids = activation_quantizers(module).values()
    for grid in grids:
        grid.drop(drop)
    try:
        yield
    finally:
        for grid in grids:
            grid.drop(None)


def mini_batches(count: int, size: int, seed: int) -> Iterator[Tensor]:
    """Indices (min(size, count),) without end: one order of all images after another."""
    generator = torch.Generator().manual_seed(seed)
    size, order = min(size, count), torch.empty(0, dtype=torch.int64)
    while True:
        if len(order) < size:
            order = torch.cat((order, torch.randperm(count, generator=generator)))
        yield order[:size]
        order = order[size:]


def _loss(
    part: Part, exact: Cache, given: Cache, target: Cache, rows: Tensor, drop: ElementDrop
) -> Tensor:
    """Squared error summed over channels, mean over images and places."""
    images = given.rows(rows)
    if given is not exact:
        images = mixed(drop(images), exact.rows(rows), images)
    error = (part.student(images) - target.rows(rows)).square()
    return error.sum(-1 if part.channels_last else 1).mean()


def rounding_penalty(soft: list[SoftBits], progress: float, config: Reconstruct) -> Tensor | None:
    """The weighted term that drives soft bits to 0 and 1; None while it does not count.

    Args:
        progress: share of the updates done, in [0, 1).
    """
    if progress < config.warmup or config.rounding_weight == 0 or not soft:
        return None
    start, end = config.beta
    beta = start + (end - start) * (progress - config.warmup) / (1 - config.warmup)
    return config.rounding_weight * sum(bits.penalty(beta) for bits in soft)


def _optimizer(
    module: nn.Module, soft: list[SoftBits], config: Reconstruct
) -> torch.optim.Optimizer:
    """Adam over the soft bits, and over the steps of weights and values."""
    weights = [layer.weight_quantizer for layer in weight_layers(module).values()]
    values = list(activation_quantizers(module).values())
    groups = [_group(grid, config.lr_weight_step) for grid in weights]
    groups += [_group(grid, config.lr_step) for grid in values if isinstance(grid, LearnedScale)]
    groups += [{"params": [b.logits], "rate": config.lr_rounding, "falls": False} for b in soft]
    return torch.optim.Adam(groups, fused=True)


def _group(grid: LearnedScale, rate: float) -> dict[str, Any]:
    """A step's rate: absolute for the layer's middle step, and the same share for the others."""
    middle = float(grid.scale.detach().median())
    share = min(rate / middle, _LARGEST_RATE)
    return {"params": [grid.log_ratio], "rate": share, "falls": True}


def _set_rates(optimizer: torch.optim.Optimizer, progress: float) -> None:
    """Steps' rates fall to 0 as a cosine; that of the bits stays."""
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    for group in optimizer.param_groups:
        group["lr"] = group["rate"] * (cosine if group["falls"] else 1.0)
