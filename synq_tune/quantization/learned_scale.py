"""Scales that learn, positive whatever an update does and at one rate for channels of every
size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

REACH = 10.0
"""A scale ends at most e^10 (22,000) times above or below its start: `exp` of more could become
0."""

SMALLEST = torch.finfo(torch.float32).tiny * 22027.0
"""Smallest initial scale: even e^10 times smaller it is a normal number to divide by."""


class LearnedScale(nn.Module):
    """A quantizer whose `scale` is initial_scale · exp(log_ratio); `log_ratio` is what learns.

    A scale that were itself the parameter could cross zero, where it has no gradient and stays, and
    one rate would fit channels of one size only. `log_ratio` starts at 0 in every channel, and its
    gradient, scale · d loss / d scale, is the same for a channel at any size.
    """

    def _learn_scale(self, initial: Tensor) -> None:
        """Make the tensors; called once by a subclass's `__init__`.

        Args:
            initial: a scalar or (O,), at least 0.
        """
        self.register_buffer("initial_scale", initial.clamp_min(SMALLEST))
        self.log_ratio = nn.Parameter(torch.zeros_like(initial))

    @torch.no_grad()
    def restart_scale(self, initial: Tensor) -> None:
        """Let the scale begin at `initial`, of the shape it has."""
        self.initial_scale.copy_(initial.clamp_min(SMALLEST))
        self.log_ratio.zero_()

    @property
    def scale(self) -> Tensor:
        """The scale as it is now, positive; gradients reach `log_ratio`."""
        return _Scaled.apply(self.initial_scale, self.log_ratio)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        # Files of versions before 2 hold the scale itself: it becomes the initial one.
        old = state_dict.pop(f"{prefix}scale", None)
        if old is not None:
            state_dict[f"{prefix}initial_scale"] = old.clamp_min(1e-8)
            state_dict[f"{prefix}log_ratio"] = torch.zeros_like(old)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class _Scaled(torch.autograd.Function):
    """initial · exp(log_ratio), with the gradient of exp beyond REACH too: what left can come
    back."""

    @staticmethod
    def forward(ctx: object, initial: Tensor, log_ratio: Tensor) -> Tensor:
        scale = log_ratio.clamp(-REACH, REACH).exp_().mul_(initial)
        ctx.save_for_backward(scale)
        return scale

    @staticmethod
    @once_differentiable
    def backward(ctx: object, grad: Tensor) -> tuple[None, Tensor]:
        (scale,) = ctx.saved_tensors
        return None, grad * scale


def learned_scales(model: nn.Module) -> dict[nn.Parameter, LearnedScale]:
    """Every `log_ratio` of a model with its quantizer: by owner, as a network may use any name."""
    return {m.log_ratio: m for m in model.modules() if isinstance(m, LearnedScale)}
