"""Statistics of BatchNorm inputs: what the teacher remembers of its training data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

BatchStatistics = dict[nn.Module, tuple[Tensor, Tensor]]
"""BatchNorm layer → (mean, variance) of its input, each (C,)."""

_LEAST_SHARE = 1e-3
"""A variance below this share of the mean square is measured again, about its mean: the difference
E[x²] - E[x]² would have lost its digits."""


def batchnorm_layers(model: nn.Module) -> list[nn.BatchNorm2d]:
    """BatchNorm layers that hold running statistics, in module order."""
    return [
        m
        for m in model.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None
    ]


@contextlib.contextmanager
def batch_statistics(model: nn.Module, correction: int = 0) -> Iterator[BatchStatistics]:
    """Collect (mean, variance) over N, H, W of every BatchNorm's input.

    Inside the block the layers normalise as in evaluation, and each forward replaces the values.
    Gradients flow through them and through the network to its input, once; none to the BatchNorms.

    Args:
        model: the network.
        correction: 0 for biased variances; 1 for Bessel's, as running variances have it.
    """
    statistics: BatchStatistics = {}
    with contextlib.ExitStack() as stack:
        for layer in batchnorm_layers(model):
            layer.forward = partial(_observe, layer, statistics, _plain(layer), correction)
            stack.callback(delattr, layer, "forward")
        yield statistics


@dataclass(frozen=True)
class _Plain:
    """What a BatchNorm does in evaluation, as tensors (C,) without gradients."""

    mean: Tensor
    variance: Tensor
    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        """(x - mean) · scale + bias of (N, C, …)."""
        return torch.batch_norm(
            x, self.weight, self.bias, self.mean, self.variance, False, 0.0, self.eps, False
        )

    @property
    def scale(self) -> Tensor:
        """Factor of each channel."""
        return self.weight * (self.variance + self.eps).rsqrt()


@torch.no_grad()
def _plain(layer: nn.BatchNorm2d) -> _Plain:
    mean, variance = layer.running_mean, layer.running_var
    weight = torch.ones_like(mean) if layer.weight is None else layer.weight.detach()
    bias = torch.zeros_like(mean) if layer.bias is None else layer.bias.detach()
    return _Plain(mean, variance, weight, bias, layer.eps)


def _observe(
    layer: nn.BatchNorm2d, statistics: BatchStatistics, plain: _Plain, correction: int, x: Tensor
) -> Tensor:
    y, mean, variance = _Observed.apply(x, plain)
    if correction:
        count = x.numel() // x.shape[1]
        variance = variance * (count / max(count - correction, 1))
    statistics[layer] = mean, variance
    return y


class _Observed(torch.autograd.Function):
    """A BatchNorm in evaluation, with the mean and the biased variance of its input per channel.

    One kernel each for the layer, the sums and the sums of squares forward, two backward: as
    separate operations statistics cost a synthesis as much again as a third of the network.
    """

    @staticmethod
    def forward(ctx: object, x: Tensor, plain: _Plain) -> tuple[Tensor, ...]:
        mean, variance = measure(x)
        ctx.save_for_backward(x, mean, plain.scale)
        return plain(x), mean, variance

    @staticmethod
    @once_differentiable
    def backward(
        ctx: object, grad_y: Tensor, grad_mean: Tensor, grad_variance: Tensor
    ) -> tuple[Tensor, None]:
        x, mean, scale = ctx.saved_tensors
        count = x.numel() // x.shape[1]
        # Σ (x - mean) is 0: the variance does not depend on the mean to first order.
        slope = 2 * grad_variance / count
        level = grad_mean / count - slope * mean
        grad = _affine(grad_y, scale, level)
        return grad.addcmul_(x, slope.to(x.dtype).view(1, -1, *[1] * (x.dim() - 2))), None


def _affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """x · scale + shift per channel: a BatchNorm's kernel passes over x once."""
    zero, one = torch.zeros_like(scale), torch.ones_like(scale)
    return torch.batch_norm(x, scale, shift, zero, one, False, 0.0, 0.0, False)


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


def measure(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of (N, C, …) per channel, (C,) in float32 at least."""
    return (_fast_moments if x.device.type == "cpu" else _moments)(x)


def _fast_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """`_moments` of values in a CPU's memory, which is asked twice instead of four times."""
    pixels, count = _in_full(x).reshape(*x.shape[:2], -1), x.numel() // x.shape[1]
    mean = pixels.sum(2).double().sum(0) / count
    square = torch.linalg.vector_norm(pixels, dim=2).double().square().sum(0) / count
    variance = (square - mean.square()).clamp_(min=0)
    weak = (variance < _LEAST_SHARE * square).nonzero().flatten()
    mean, variance = mean.to(pixels.dtype), variance.to(pixels.dtype)
    if len(weak):
        mean[weak], variance[weak] = _moments(x[:, weak])
    return mean, variance


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of (N, C, …) per channel, (C,), about the mean."""
    pixels = _in_full(x).reshape(*x.shape[:2], -1)
    mean = pixels.mean(2).mean(0)
    # E[x²] - E[x]² loses precision where the mean is large; two passes do not.
    norms = torch.linalg.vector_norm(pixels - mean[:, None], dim=2)
    return mean, norms.square().sum(0) / (x.numel() // x.shape[1])


def _in_full(x: Tensor) -> Tensor:
    """Half precision as float32, where sums keep their digits; others as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
