"""Statistics of BatchNorm inputs: what the teacher remembers of its training data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import Tensor, nn

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

    Each forward inside the block replaces the values; gradients flow through them.
    """
    statistics: BatchStatistics = {}

    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        dims = [d for d in range(x.dim()) if d != 1]
        mean = x.mean(dims)
        # E[x²] - E[x]² loses precision where the mean is large; two passes do not.
        variance = (x - mean.view(1, -1, *[1] * (x.dim() - 2))).square().mean(dims)
        statistics[module] = (mean, variance)

    with contextlib.ExitStack() as stack:
        for layer in batchnorm_layers(model):
            stack.callback(layer.register_forward_pre_hook(hook).remove)
        yield statistics
