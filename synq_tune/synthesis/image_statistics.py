"""Statistics of single images, where a batch's are those of all of its images together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from synq_tune.graph.batchnorm import batchnorm_layers
from synq_tune.synthesis.statistics import Moments

_EPS = 1e-6
"""Under every root, as in the released codes of ZeroQ and Genie."""


def image_prior(images: Tensor) -> Tensor:
    """1/N Σ_{n,c} [mean² + (deviation - 1)²], over the pixels of each channel of each image.

    Args:
        images: (N, C, H, W), of more than one pixel.
    """
    variance, mean = torch.var_mean(images, (2, 3))
    deviation = (variance + _EPS).sqrt()
    return (mean.square() + (deviation - 1).square()).sum() / len(images)


@contextlib.contextmanager
def image_statistics(model: nn.Module) -> Iterator[dict[nn.Module, Moments]]:
    """Collect (mean, variance), each (N, C) float32, of every BatchNorm's input in each image.

    Variances have Bessel's correction where an image has more than one value; each forward replaces
    what was collected. Gradients flow through it. The layers are the model's own again behind the
    block.
    """
    statistics: dict[nn.Module, Moments] = {}
    with contextlib.ExitStack() as stack:
        for layer in batchnorm_layers(model):
            stack.callback(layer.register_forward_pre_hook(partial(_keep, statistics)).remove)
        yield statistics


def _keep(statistics: dict[nn.Module, Moments], layer: nn.Module, inputs: tuple[Tensor]) -> None:
    values = inputs[0].float().flatten(2)
    variance, mean = torch.var_mean(values, 2, correction=int(values.shape[2] > 1))
    statistics[layer] = mean, variance
