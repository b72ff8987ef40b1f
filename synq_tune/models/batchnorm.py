"""Statistics of BatchNorm inputs: what the teacher remembers of its training data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

BatchStatistics = dict[nn.Module, tuple[Tensor, Tensor]]
"""BatchNorm layer → (mean, biased variance) of its input, each (C,)."""


def batchnorm_layers(model: nn.Module) -> list[nn.BatchNorm2d]:
    """BatchNorm layers that hold running statistics, in module order."""
    return [
        m
        for m in model.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None
    ]


@contextlib.contextmanager
def batch_statistics(model: nn.Module) -> Iterator[BatchStatistics]:
    """Collect (mean, biased variance) over N, H, W of every BatchNorm's input.

    Each forward inside the block replaces the values; gradients flow through them, once.
    """
    statistics: BatchStatistics = {}

    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        statistics[module] = _Moments.apply(inputs[0])

    with contextlib.ExitStack() as stack:
        for layer in batchnorm_layers(model):
            stack.callback(layer.register_forward_pre_hook(hook).remove)
        yield statistics


class _Moments(torch.autograd.Function):
    """Mean and biased variance per channel of (N, C, …).

    One pass over the values backward and none kept but the input: written out as separate operations
    the statistics cost a synthesis as much again as a third of the network.
    """

    @staticmethod
    def forward(ctx: object, x: Tensor) -> tuple[Tensor, Tensor]:
        dims = [d for d in range(x.dim()) if d != 1]
        mean = x.mean(dims)
        # E[x²] - E[x]² loses precision where the mean is large; two passes do not.
        norm = torch.linalg.vector_norm(x - _like(mean, x), dim=dims)
        ctx.save_for_backward(x, mean)
        return mean, norm.square_().div_(x.numel() // x.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: object, grad_mean: Tensor, grad_variance: Tensor) -> Tensor:
        x, mean = ctx.saved_tensors
        count = x.numel() // x.shape[1]
        # Σ (x - mean) is 0: the variance does not depend on the mean to first order.
        slope = 2 * grad_variance / count
        return torch.addcmul(_like(grad_mean / count - slope * mean, x), x, _like(slope, x))


def _like(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (x.dim() - 2))
