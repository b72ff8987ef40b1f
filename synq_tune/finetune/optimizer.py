"""The recipe's optimizer: which tensor moves at which rate, and how the rate falls."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from synq_tune.config import FineTune

_SMALLEST_SIZE = 1e-3


def optimizer_of(student: nn.Module, config: FineTune) -> torch.optim.Optimizer:
    """The recipe's optimizer over all parameters of a student.

    Each group's `lr_factor` multiplies the rate that `set_lr` sets. With `lr_relative` it is the
    tensor's root mean square at the start (at least 1e-3, so that zeros can move).
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in student.named_parameters():
        is_step = name.endswith(".scale")
        factor = _kind_factor(parameter, is_step, config)
        factor *= _size(parameter) if config.lr_relative else 1.0
        groups.setdefault((factor, is_step), []).append(parameter)
    # Decaying a learned step size would shrink the grid itself.
    return _optimizer(
        [
            {"params": of, "lr_factor": factor, "weight_decay": 0 if is_step else config.weight_decay}
            for (factor, is_step), of in groups.items()
        ],
        config,
    )  # fmt: skip


def _kind_factor(parameter: Tensor, is_step: bool, config: FineTune) -> float:
    if is_step:
        return config.step_lr_factor
    return config.norm_lr_factor if parameter.dim() == 1 else 1.0


def _optimizer(groups: list[dict], config: FineTune) -> torch.optim.Optimizer:
    # Fused: one pass over a parameter instead of one per operation, several times faster on a CPU too.
    if config.optimizer == "adam":
        betas = (config.momentum, 0.999)
        return torch.optim.AdamW(groups, lr=config.lr, betas=betas, fused=True)
    return torch.optim.SGD(
        groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=True
    )


def _size(tensor: Tensor) -> float:
    return max(float(tensor.detach().square().mean().sqrt()), _SMALLEST_SIZE)


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
