"""Fake-quantization in the training step: values put on a grid, with the gradients each family
promises.

Both functions give, to the last bit, `dequantize(quantize(…))` of `affine.py`, computed in place in
one new tensor: written out as separate operations they are the largest overhead of a step.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Limits = tuple[int, int]
"""Smallest and largest code."""

_PART = 2**18
"""Values at a time on a CPU, so that they stay in its cache from the first operation to the
last."""


def fake_quantize(
    x: Tensor, scale: Tensor, zero_point: Tensor, limits: Limits, masks: bool = False
) -> Tensor:
    """Nearest values of a fixed grid; the gradient passes as if nothing had been rounded.

    Args:
        x: (N, …).
        scale: broadcasts over `x` from its first dimension or is a scalar; no gradient.
        zero_point: like `scale`.
        limits: smallest and largest code.
        masks: values further than half a step beyond the grid's ends pass no gradient; else they
            pass it as if they had not been clipped either.
    """
    return (_Masked if masks else _StraightThrough).apply(x, scale, zero_point, limits)


def learned_fake_quantize(
    x: Tensor, step: Tensor, zero_point: Tensor, limits: Limits, factor: float
) -> Tensor:
    """Nearest values of a grid whose step learns (LSQ, Esser et al., 2020, Eq. 1-3).

    Gradients with v = x / step - zero_point: to `x` where v lies strictly between the limits, else
    0; to the step Σ of round(v) - v between the limits and of code + zero_point at or beyond one,
    times `factor`.

    Args:
        x: (N, …).
        step: positive; a scalar, or (N, 1, …) for one step per row.
        zero_point: integers, a scalar or one per row.
        limits: smallest and largest code.
        factor: the step's gradient is scaled by it.
    """
    return _Learned.apply(x, step, zero_point, limits, factor)


def on_grid(x: Tensor, scale: Tensor, zero_point: Tensor, limits: Limits) -> Tensor:
    """Nearest values of the grid, without a graph; arguments as of `fake_quantize`."""
    value = torch.empty_like(x)
    for part, step, zero, out in _parts(x, scale, zero_point, value):
        torch.div(part, step, out=out).sub_(zero).round_().clamp_(*limits).add_(zero).mul_(step)
    return value


def _parts(x: Tensor, scale: Tensor, zero_point: Tensor, *same: Tensor) -> list[tuple[Tensor, ...]]:
    """Rows of `x` and of tensors of its shape in parts that fit a cache, each with its grid."""
    threads = torch.get_num_threads()
    if x.is_cuda or x.dim() == 0 or x.numel() <= 2 * threads * _PART or scale.numel() > 1:
        return [(x, scale, zero_point, *same)]
    rows = max(1, threads * _PART * len(x) // x.numel())
    parts = zip(*(tensor.split(rows) for tensor in (x, *same)), strict=True)
    return [(part, scale, zero_point, *rest) for part, *rest in parts]


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: object, x: Tensor, scale: Tensor, zero_point: Tensor, limits: Limits
    ) -> Tensor:
        return on_grid(x, scale, zero_point, limits)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return grad, None, None, None


class _Masked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: object, x: Tensor, scale: Tensor, zero_point: Tensor, limits: Limits
    ) -> Tensor:
        ctx.save_for_backward(x, scale, zero_point)
        ctx.limits = limits
        return on_grid(x, scale, zero_point, limits)

    @staticmethod
    @once_differentiable
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, None, None, None]:
        x, scale, zero_point = ctx.saved_tensors
        ends = ctx.limits[0] - 0.5, ctx.limits[1] + 0.5
        grad_x = torch.empty_like(x)
        for part, step, zero, given, out in _parts(x, scale, zero_point, grad, grad_x):
            v = torch.div(part, step).sub_(zero)
            torch.ops.aten.hardtanh_backward(given, v, *ends, grad_input=out)
        return grad_x, None, None, None


class _Learned(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: object, x: Tensor, step: Tensor, zero_point: Tensor, limits: Limits, factor: float
    ) -> Tensor:
        ctx.save_for_backward(x, step, zero_point)
        ctx.limits, ctx.factor = limits, factor
        return on_grid(x, step, zero_point, limits)

    @staticmethod
    @once_differentiable
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        x, step, zero_point = ctx.saved_tensors
        low, high = ctx.limits
        grad_x = torch.empty_like(x)
        sums = []
        for part, scale, zero, given, out in _parts(x, step, zero_point, grad, grad_x):
            ratio = part / scale
            v = ratio - zero
            torch.ops.aten.hardtanh_backward(given, v, low, high, grad_input=out)
            # Σ grad · (code + zero point) - Σ grad inside · x / step
            terms = v.round_().clamp_(low, high).add_(zero).mul_(given)
            sums.append(_sum_to(terms.addcmul_(out, ratio, value=-1), scale))
        return grad_x, sum(sums).mul_(ctx.factor), None, None, None


def _sum_to(values: Tensor, like: Tensor) -> Tensor:
    return values.sum() if like.dim() == 0 else values.sum_to_size(like.shape)
