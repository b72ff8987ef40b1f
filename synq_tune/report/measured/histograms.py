"""How weights and values lie on their grids."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.utils.hooks import RemovableHandle

from synq_tune.quantization.affine import per_channel
from synq_tune.quantization.base import ActivationQuantizer
from synq_tune.quantization.layers import QUANTIZED_LAYERS
from synq_tune.quantization.student import activation_quantizers

NUM_BINS = 64
MOST_LINES = 16
"""Codes up to which each is a line; of wider grids only the ends are."""
_MOST_VALUES = 200_000


@dataclass(frozen=True)
class Histogram:
    """One layer's weights, or one tensor's values."""

    name: str
    bits: int
    centers: list[float]
    """Middle of each bin."""
    shares: list[float]
    """Percent in each bin."""
    lines: list[float]
    """Where the grid has its points."""
    beyond: float
    """Percent beyond the outermost points, by more than half a step."""


def weight_histograms(student: fx.GraphModule, names: list[str]) -> list[Histogram]:
    """Weights in steps of their own channel's grid, so that all channels share one axis."""
    return [_of_weight(name, student.get_submodule(name)) for name in names]


def quantized_layers(student: fx.GraphModule) -> list[str]:
    """Names of the layers with a weight grid, in the network's order."""
    kinds = tuple(QUANTIZED_LAYERS.values())
    return [name for name, module in student.named_modules() if isinstance(module, kinds)]


@torch.no_grad()
def _of_weight(name: str, layer: nn.Module) -> Histogram:
    quantizer, weight = layer.weight_quantizer, layer.weight
    scale, zero_point = (per_channel(v, weight) for v in quantizer.qparams(weight))
    low, high = quantizer.limits
    return _histogram(
        name, quantizer.bits, weight / scale - zero_point, float(low), 1.0, high - low
    )


def value_histograms(student: fx.GraphModule, images: Tensor, count: int) -> list[Histogram]:
    """Values in front of `count` grids, spread over the network.

    Args:
        images: (N, C, H, W), normalised.
    """
    grids = {n: q for n, q in activation_quantizers(student).items() if _is_uniform(q)}
    chosen = {name: grids[name] for name in spread(list(grids), count)}
    with _inputs(chosen) as inputs, torch.no_grad():
        student(images)
    return [_of_values(name, chosen[name], inputs[name]) for name in chosen if name in inputs]


def spread(names: list[str], count: int) -> list[str]:
    """The first, the last, and what lies evenly between."""
    if len(names) <= count:
        return names
    return [names[at * (len(names) - 1) // (count - 1)] for at in range(count)]


def _is_uniform(quantizer: ActivationQuantizer) -> bool:
    """Whether one scale says it all; a grid per channel, or of other steps, has no one picture."""
    scale, zero_point = quantizer.qparams()
    return scale.numel() == 1 == zero_point.numel() and bool(scale.isfinite().all() and scale > 0)


@contextlib.contextmanager
def _inputs(quantizers: dict[str, ActivationQuantizer]) -> Iterator[dict[str, Tensor]]:
    """What each is given inside the block, at most `_MOST_VALUES` numbers of it."""
    inputs: dict[str, Tensor] = {}

    def keep(name: str) -> RemovableHandle:
        def hook(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            values = given[0].detach().flatten()
            inputs[name] = values[:: max(1, len(values) // _MOST_VALUES)]

        return quantizers[name].register_forward_pre_hook(hook)

    with contextlib.ExitStack() as stack:
        for name in quantizers:
            stack.enter_context(keep(name))
        yield inputs


def _of_values(name: str, quantizer: ActivationQuantizer, values: Tensor) -> Histogram:
    scale, zero_point = (float(v.detach()) for v in quantizer.qparams())
    low, high = quantizer.limits
    first = (low + zero_point) * scale
    return _histogram(name, quantizer.bits, values, first, scale, high - low)


def _histogram(
    name: str, bits: int, numbers: Tensor, first: float, step: float, steps: int
) -> Histogram:
    """Args: first: where the grid begins; step: between its points; steps: of them."""
    numbers = numbers.detach().float().cpu().flatten()
    last = first + step * steps
    low = min(first, float(numbers.quantile(0.001) if len(numbers) < 2**24 else numbers.min()))
    high = max(last, float(numbers.quantile(0.999) if len(numbers) < 2**24 else numbers.max()))
    counts = torch.histc(numbers.clamp(low, high), NUM_BINS, low, high)
    width = (high - low) / NUM_BINS
    is_beyond = (numbers < first - step / 2) | (numbers > last + step / 2)
    lines = [first + step * n for n in (range(steps + 1) if steps < MOST_LINES else (0, steps))]
    return Histogram(
        name, bits, [low + width * (n + 0.5) for n in range(NUM_BINS)],
        (100 * counts / max(len(numbers), 1)).tolist(), lines,
        100 * float(is_beyond.float().mean()),
    )  # fmt: skip
