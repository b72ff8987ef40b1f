"""Statistics of BatchNorm inputs: what the teacher remembers of its training data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

BatchStatistics = dict[nn.Module, tuple[Tensor, Tensor]]
"""BatchNorm layer → (mean, biased variance) of its input, each (C,)."""

_CACHED_BYTES = 2**20
"""A CPU's core passes several times over as much as this without asking its memory twice."""


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

    Inside the block the layers normalise as in evaluation, and each forward replaces the values.
    Gradients flow through them and through the network to its input, once; none to the BatchNorms.
    """
    statistics: BatchStatistics = {}
    with contextlib.ExitStack() as stack:
        for layer in batchnorm_layers(model):
            layer.forward = partial(_observe, layer, statistics, *_scale_and_shift(layer))
            stack.callback(delattr, layer, "forward")
        yield statistics


@torch.no_grad()
def _scale_and_shift(layer: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What the layer does to its input in evaluation, each (C,)."""
    scale = (layer.running_var + layer.eps).rsqrt()
    scale = scale if layer.weight is None else scale * layer.weight
    shift = -layer.running_mean * scale
    return scale, shift if layer.bias is None else shift + layer.bias


def _observe(
    layer: nn.BatchNorm2d, statistics: BatchStatistics, scale: Tensor, shift: Tensor, x: Tensor
) -> Tensor:
    y, mean, variance = _Observed.apply(x, scale, shift)
    statistics[layer] = mean, variance
    return y


class _Observed(torch.autograd.Function):
    """x · scale + shift of (N, C, …), with the mean and the biased variance of x per channel.

    One visit to the values forward, one backward: as separate operations statistics cost a
    synthesis as much again as a third of the network. Products with one factor a channel and sums
    over an image's pixels are what a CPU has fast code for; `addcmul` and sums over images and
    pixels at once are not.
    """

    @staticmethod
    def forward(ctx: object, x: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, ...]:
        y = torch.empty_like(x)
        moments = []
        for part, out in zip(_parts(x), _parts(y), strict=True):
            part = _in_full(part)
            out.copy_((part * _like(scale, x)).add_(_like(shift, x)))
            moments.append(_moments(part))
        mean, variance = pool([len(part) for part in _parts(x)], moments)
        ctx.save_for_backward(x, mean, scale)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(
        ctx: object, grad_y: Tensor, grad_mean: Tensor, grad_variance: Tensor
    ) -> tuple[Tensor, None, None]:
        x, mean, scale = ctx.saved_tensors
        count = x.numel() // x.shape[1]
        # Σ (x - mean) is 0: the variance does not depend on the mean to first order.
        slope = 2 * grad_variance / count
        level, slope = _like(grad_mean / count - slope * mean, x), _like(slope, x)
        grad = torch.empty_like(x)
        for part, grad_out, out in zip(_parts(x), _parts(grad_y), _parts(grad), strict=True):
            sloped = (_in_full(part) * slope).add_(level)
            out.copy_(sloped.add_(_in_full(grad_out) * _like(scale, x)))
        return grad, None, None


def pool(counts: Sequence[int], moments: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of several batches together, as if they were one.

    The variance is that within the batches plus that of their means, each weighted by the batch's
    number of images.

    Args:
        counts: images of each batch.
        moments: (mean, biased variance) of each, (C,).
    """
    if len(moments) == 1:
        return moments[0]
    means, variances = map(torch.stack, zip(*moments, strict=True))
    weights = means.new_tensor(counts) / sum(counts)
    mean = weights @ means
    return mean, weights @ (variances + (means - mean).square())


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    pixels = x.reshape(*x.shape[:2], -1)
    mean = pixels.mean(2).mean(0)
    # E[x²] - E[x]² loses precision where the mean is large; two passes do not.
    norms = torch.linalg.vector_norm(pixels - mean[:, None], dim=2)
    return mean, norms.square().sum(0) / (x.numel() // x.shape[1])


def _parts(x: Tensor) -> tuple[Tensor, ...]:
    """Slices of a batch that stay in a core's cache; the whole elsewhere, where launches cost
    more."""
    if x.device.type != "cpu":
        return (x,)
    return x.split(max(1, _CACHED_BYTES * len(x) // (x.numel() * x.element_size())))


def _in_full(x: Tensor) -> Tensor:
    """Half precision as float32, where sums keep their digits and a CPU has faster code; others as
    is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _like(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (x.dim() - 2))
