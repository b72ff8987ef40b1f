"""The recipe's optimizer: one update, and how the rate rises and falls."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from synq_tune.config import FineTune
from synq_tune.finetune.rates import rates


def optimizer_of(student: nn.Module, config: FineTune) -> torch.optim.Optimizer:
    """The recipe's optimizer over all parameters of a student.

    Each group's `lr_factor` multiplies the rate that `set_lr` sets; its `sizes`, where it has any,
    are what `update` divides each parameter by.
    """
    groups: dict[tuple[float, bool, bool], dict] = {}
    for parameter, rate in rates(student, config):
        key = (rate.factor, rate.is_decayed, rate.sizes is not None)
        decay = config.weight_decay if rate.is_decayed else 0
        empty = {"params": [], "lr_factor": rate.factor, "weight_decay": decay, "sizes": []}
        group = groups.setdefault(key, empty)
        group["params"].append(parameter)
        if rate.sizes is not None:
            group["sizes"].append(rate.sizes)
    return _optimizer(list(groups.values()), config)


def _optimizer(groups: list[dict], config: FineTune) -> torch.optim.Optimizer:
    # Fused: one pass over a parameter instead of one per operation, several times faster on a CPU
    # too.
    if config.optimizer == "adam":
        betas = (config.momentum, 0.999)
        return torch.optim.AdamW(groups, lr=config.lr, betas=betas, fused=True)
    return torch.optim.SGD(
        groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=True
    )


@torch.no_grad()
def update(optimizer: torch.optim.Optimizer, grad_clip: float | None) -> None:
    """Clip the gradients to a global norm and move the parameters, both measured in `sizes`."""
    sized = list(_sized(optimizer))
    for parameter, size in sized:
        parameter.div_(size)
        parameter.grad.mul_(size)
    if grad_clip is not None:
        every = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(every, grad_clip)
    optimizer.step()
    for parameter, size in sized:
        parameter.mul_(size)


def _sized(optimizer: torch.optim.Optimizer) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Parameters that have sizes and a gradient, with their sizes."""
    for group in optimizer.param_groups:
        if group["sizes"]:
            pairs = zip(group["params"], group["sizes"], strict=True)
            yield from ((p, size) for p, size in pairs if p.grad is not None)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its share of a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


def warmup_factor(config: FineTune, progress: float) -> float:
    """Share of the schedule's rate.

    Args:
        progress: share of all updates done after this one, in (0, 1]: even the first one moves.
    """
    return min(1.0, progress / config.warmup) if config.warmup else 1.0


def lr_factor(config: FineTune, epoch: int, progress: float) -> float:
    """Learning rate over the initial one.

    Args:
        epoch: 0-based. progress: share of all steps done, in [0, 1).
    """
    final = config.final_lr_factor
    if config.schedule == "cosine":
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))
    if config.schedule == "exponential":
        return max(final, 1e-8) ** progress
    if config.schedule == "multistep":
        return 0.1 ** sum(epoch >= milestone for milestone in config.milestones)
    return 1.0
