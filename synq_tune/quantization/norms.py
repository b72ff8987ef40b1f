"""Correct a student's BatchNorms for what rounding its weights did to the values in front of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn

from synq_tune.graph.batchnorm import batch_statistics, batchnorm_layers, measure
from synq_tune.quantization.student import activation_quantizers, passing, weight_quantizers

_MOST_PIXELS = 64 * 224 * 224
"""Of the images that are looked at: values of one layer of 64 images of 224 px take half a GB."""


@torch.no_grad()
def correct_norms(student: nn.Module, batches: Iterable[Tensor]) -> None:
    """Shift and scale what each BatchNorm remembers as rounding the weights shifted and scaled it.

    μ ← m̂ - (m - μ) · √r, σ² + ε ← (σ² + ε) · r, r = (v̂ + ε) / (v + ε): m, v are the moments of the
    layer's input with float weights, m̂, v̂ those with rounded ones, behind layers that are corrected
    already. Mean and deviation of each layer's output are then those of the float network on the
    same images, which need not have the statistics of the training data. Values stay float. This is
    the bias correction of data-free quantization (DFQ, ICCV 2019, §4.2), measured, and for the
    variance too.

    Args:
        student: not yet calibrated; its BatchNorms are changed in place. One without any stays.
        batches: normalised images (N, C, H, W); as many of the first as fit the memory.

    Raises:
        ValueError: there is no batch.
    """
    if not batchnorm_layers(student):
        return
    images = _first(batches)
    with passing(activation_quantizers(student).values()):
        with passing(weight_quantizers(student)), batch_statistics(student) as exact:
            student(images)
        with contextlib.ExitStack() as stack:
            for layer in batchnorm_layers(student):
                hook = partial(_correct, exact[layer])
                stack.callback(layer.register_forward_pre_hook(hook).remove)
            student(images)


def _first(batches: Iterable[Tensor]) -> Tensor:
    taken: list[Tensor] = []
    for batch in batches:
        taken.append(batch)
        if sum(t.shape[0] * t.shape[2] * t.shape[3] for t in taken) >= _MOST_PIXELS:
            break
    if not taken:
        raise ValueError("`the correction sees at least one batch` must hold, but got batches=0.")
    images = torch.cat(taken)
    return images[: max(2, _MOST_PIXELS // (images.shape[2] * images.shape[3]))]


def _correct(exact: tuple[Tensor, Tensor], layer: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
    mean, variance = measure(inputs[0])
    ratio = (variance + layer.eps) / (exact[1] + layer.eps)
    offset = (exact[0] - layer.running_mean) * ratio.sqrt()
    layer.running_mean.copy_(mean - offset)
    corrected = (layer.running_var + layer.eps) * ratio - layer.eps
    layer.running_var.copy_(corrected.clamp_(min=0))
