"""How far each layer's result is from full precision: the signal-to-noise ratio."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.utils.hooks import RemovableHandle

from synq_tune.models.teacher import LoadedTeacher
from synq_tune.quantization.layers import QUANTIZED_LAYERS

_MOST = 99.0
"""Decibels; exact results have no end."""


@dataclass(frozen=True)
class LayerNoise:
    """One quantized layer."""

    name: str
    decibels: float
    """10 log10(Σ t² / Σ (t - s)²) of the teacher's result t and the student's s, both of whole
    networks: noise of earlier layers is in it."""


@torch.no_grad()
def layer_noise(
    teacher: LoadedTeacher, student: fx.GraphModule, images: Tensor
) -> list[LayerNoise]:
    """Every quantized layer in call order.

    Args:
        images: (N, C, H, W), normalised; a few dozen are enough.
    """
    kinds = tuple(QUANTIZED_LAYERS.values())
    names = [name for name, module in student.named_modules() if isinstance(module, kinds)]
    names = [name for name in names if _has(teacher.graph, name)]
    with _results(teacher.graph, names) as expected:
        teacher(images)
    with _results(student, names) as found:
        student(images)
    return [
        LayerNoise(name, _decibels(expected[name], found[name]))
        for name in found
        if name in expected and expected[name].shape == found[name].shape
    ]


def _has(graph: nn.Module, name: str) -> bool:
    """Whether a layer kept its name; a quantizer's family may have rewritten the student."""
    return name in dict(graph.named_modules())


@contextlib.contextmanager
def _results(model: nn.Module, names: list[str]) -> Iterator[dict[str, Tensor]]:
    """What the named layers give inside the block, in call order."""
    results: dict[str, Tensor] = {}

    def keep(name: str) -> RemovableHandle:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            results[name] = output.detach()

        return model.get_submodule(name).register_forward_hook(hook)

    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(keep(name))
        yield results


def _decibels(expected: Tensor, found: Tensor) -> float:
    noise = (expected - found).double().square().sum()
    ratio = expected.double().square().sum() / noise.clamp_min(1e-300)
    return float((10 * ratio.clamp_min(1e-10).log10()).clamp_max(_MOST))
