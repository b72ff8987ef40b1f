"""Weights whose rounding is learned together with their steps (Genie, Jeon et al., 2023, after
AdaRound, Nagel et al., 2020).

With base integers B = floor(w / s - z), constant, soft bits h(V) in [0, 1] and the step s both
learn in s · (clamp(B + h(V)) + z). When a reconstruction is done, h(V) becomes 1 where V >= 0,
else 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from synq_tune.quantization.affine import per_channel
from synq_tune.quantization.lsq import LsqWeight

_LOW, _HIGH = -0.1, 1.1
"""What the sigmoid is stretched to before it is clamped to [0, 1]: 0 and 1 are reached."""


class SoftBits:
    """How far each weight (O, …) is rounded up, while that is learned."""

    def __init__(self, ratio: Tensor) -> None:
        """Start where the weights are exact.

        Args:
            ratio: (O, …), w / s - z; real codes.
        """
        self.base = ratio.floor()
        share = (ratio - self.base - _LOW) / (_HIGH - _LOW)
        self.logits = share.logit_().requires_grad_(True)
        """V, (O, …); what learns."""

    def values(self) -> Tensor:
        """h(V), (O, …) in [0, 1]."""
        return (self.logits.sigmoid() * (_HIGH - _LOW) + _LOW).clamp(0.0, 1.0)

    def penalty(self, beta: float) -> Tensor:
        """Σ 1 - |2 h(V) - 1|^β, a scalar: 0 once every bit is 0 or 1."""
        return self.logits.numel() - (2.0 * self.values() - 1.0).abs().pow(beta).sum()

    def chosen(self) -> Tensor:
        """B + 1[V >= 0], (O, …)."""
        return self.base + (self.logits.detach() >= 0)


class LearnedRounding(LsqWeight):
    """LSQ's grid, whose codes a reconstruction can choose; until one has, rounding is to nearest.

    Chosen codes stay whatever the weight does: only the steps learn. `release` gives the weight its
    chosen value and goes on from there as LSQ does.
    """

    learns_rounding = True

    def __init__(self, weight: Tensor, bits: int) -> None:
        super().__init__(weight, bits)
        self.register_buffer("chosen", torch.zeros_like(weight, dtype=torch.int8))
        self.register_buffer("is_chosen", torch.zeros((), dtype=torch.bool))
        self._is_fixed = False  # is_chosen as a bool: asking a GPU for it would stall each step
        self.soft: SoftBits | None = None

    @torch.no_grad()
    def soften(self, weight: Tensor) -> SoftBits:
        """Let bits and step learn from now on; returns what holds the bits."""
        step, zero = (per_channel(v, weight) for v in self.qparams(weight))
        self.soft = SoftBits(weight / step - zero)
        return self.soft

    @torch.no_grad()
    def harden(self) -> None:
        """Choose the codes that the soft bits are nearest to; they stay."""
        self.chosen.copy_(self.soft.chosen().clamp_(*self.limits))
        self.soft = None
        self._fix(True)

    @torch.no_grad()
    def release(self, weight: Tensor) -> None:
        """Give the weight (O, …), in place, its chosen values, from which it can be trained."""
        weight.copy_(self.forward(weight))
        self._fix(False)

    def _fix(self, is_fixed: bool) -> None:
        self.is_chosen.fill_(is_fixed)
        self._is_fixed = is_fixed

    def forward(self, weight: Tensor) -> Tensor:
        if self.soft is None and not self._is_fixed:
            return super().forward(weight)
        step, zero = (per_channel(v, weight) for v in self.qparams(weight))
        if self.soft is not None:
            codes = (self.soft.base + self.soft.values()).clamp(*self.limits)
            return (codes + zero) * step
        factor = 1.0 / math.sqrt(weight[0].numel() * self.limits[1])
        return (self.chosen + zero) * _Slowed.apply(step, factor)

    def codes(self, weight: Tensor) -> Tensor:
        return self.chosen.float() if self._is_fixed else super().codes(weight)

    def _load_from_state_dict(self, *given: object) -> None:
        super()._load_from_state_dict(*given)
        self._is_fixed = bool(self.is_chosen)


class _Slowed(torch.autograd.Function):
    """The same values; the gradient is scaled as LSQ scales a step's."""

    @staticmethod
    def forward(ctx: object, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None
