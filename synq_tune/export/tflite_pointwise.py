"""Sums, products, averages and activation functions as the runtime's operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from synq_tune.export.absorb import affine_of
from synq_tune.export.tflite_builder import (
    Builder,
    Grid,
    Pending,
    Value,
    activation_code,
    channels_last,
)
from synq_tune.export.tflite_layers import padded
from synq_tune.export.tflite_schema import schema

_PROBABILITY = Grid(np.float32(1 / 256), -128)
"""The one grid that the runtime's LOGISTIC gives."""


def pair(
    builder: Builder, operator: str, name: str, a: Value, b: Value, shape: Sequence[int]
) -> Pending:
    """`ADD` or `MUL` of two tensors; one of them may have axes of size 1."""

    def emit(out: str, grid: Grid, activation: str) -> int:
        sides = [a, b] if operator == "MUL" else [_large(builder, x, out, grid) for x in (a, b)]
        return builder.operator(
            operator,
            [side.index for side in sides],
            builder.codes(out, shape, grid),
            fusedActivationFunction=activation_code(activation),
        )

    return Pending(name, emit, tuple(shape), fuses=True)


def _large(builder: Builder, x: Value, out: str, grid: Grid) -> Value:
    """A side of a sum; zero in place of one whose largest code is less than a quarter of a step.

    Such is a branch whose values are all zero. XNNPACK refuses a file with it.
    """
    if x.grid.scale > grid.scale / 1024:
        return x
    index = builder.scalar(f"{out}.zero", grid.zero_point, grid, len(x.shape))
    return Value(index, grid, (1,) * len(x.shape))


def requantized(builder: Builder, name: str, x: Value) -> Pending:
    """The same values on another grid."""
    return _single(builder, "QUANTIZE", name, x)


def _single(builder: Builder, operator: str, name: str, x: Value) -> Pending:
    def emit(out: str, grid: Grid, activation: str) -> int:
        return builder.operator(operator, [x.index], builder.codes(out, x.shape, grid))

    return Pending(name, emit, x.shape)


def on(builder: Builder, grid: Grid, x: Value, name: str) -> Value:
    """`x` on a grid: itself, or requantized."""
    if x.grid == grid:
        return x
    return replace(builder.place(requantized(builder, name, x), name, grid), flat=x.flat)


def global_average(builder: Builder, name: str, x: Value) -> Pending:
    """The average over H and W, which stay as axes of size 1."""
    shape = (*x.shape[:2], 1, 1)

    def emit(out: str, grid: Grid, activation: str) -> int:
        axes = builder.constant("image_axes", np.array([1, 2], np.int32), "INT32")
        return builder.operator(
            "MEAN", [x.index, axes], builder.codes(out, shape, grid), keepDims=True
        )

    return Pending(name, emit, shape)


def average_pool(
    builder: Builder, name: str, pool: nn.AvgPool2d, x: Value, shape: Sequence[int]
) -> Pending:
    """Average pooling as a depthwise convolution by codes of 1.

    The runtime's own pooling cannot change the grid, so that values would be rounded twice.
    """
    size, stride, side = (_sides(v) for v in (pool.kernel_size, pool.stride, pool.padding))
    pads = (side[0], side[0], side[1], side[1])
    channels, units = x.shape[1], np.full(x.shape[1], 1 / (size[0] * size[1]), np.float32)

    def emit(out: str, grid: Grid, activation: str) -> int:
        source, kind = padded(builder, f"{out}.padded", x, pads, (size, stride), tuple(shape))
        ones = np.ones((1, *size, channels), np.int8)
        zeros = np.zeros(channels, np.int32)
        operands = [
            source,
            builder.constant(f"{name}.weight", ones, "INT8", units, 3),
            builder.constant(f"{name}.bias", zeros, "INT32", x.grid.scale * units),
        ]
        return builder.operator(
            "DEPTHWISE_CONV_2D", operands, builder.codes(out, shape, grid), padding=kind,
            strideH=stride[0], strideW=stride[1], depthMultiplier=1,
            fusedActivationFunction=activation_code(activation),
        )  # fmt: skip

    return Pending(name, emit, tuple(shape), fuses=True)


def batchnorm(builder: Builder, name: str, norm: nn.BatchNorm2d, x: Value) -> Pending:
    """A BatchNorm that no layer absorbs: a depthwise convolution of one value a channel.

    Its codes are the largest there are, so that the bias has the finest steps.
    """
    factor, offset = (v.cpu().numpy() for v in affine_of(norm))
    codes = (np.sign(factor) * 127).astype(np.int8).reshape(1, 1, 1, -1)
    scales = np.where(factor == 0, 1.0, np.abs(factor) / 127).astype(np.float32)
    units = x.grid.scale * scales
    bias = np.clip(np.rint(offset / units), -(2**30), 2**30).astype(np.int32)

    def emit(out: str, grid: Grid, activation: str) -> int:
        operands = [
            x.index,
            builder.constant(f"{name}.weight", codes, "INT8", scales, 3),
            builder.constant(f"{name}.bias", bias, "INT32", units),
        ]
        return builder.operator(
            "DEPTHWISE_CONV_2D", operands, builder.codes(out, x.shape, grid),
            padding=schema().Padding.VALID, strideH=1, strideW=1, depthMultiplier=1,
            fusedActivationFunction=activation_code(activation),
        )  # fmt: skip

    return Pending(name, emit, x.shape, fuses=True)


def is_plain_average(pool: nn.AvgPool2d, x: Value, shape: Sequence[int]) -> bool:
    """Whether every window has as many values, those of the padding included."""
    size, stride, side = (_sides(v) for v in (pool.kernel_size, pool.stride, pool.padding))
    sizes = [
        (n + 2 * p - k) // s + 1 for n, k, s, p in zip(x.shape[2:], size, stride, side, strict=True)
    ]
    counts = pool.count_include_pad or not any(side)
    return counts and pool.divisor_override is None and sizes == list(shape[2:])


def _sides(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def concatenation(
    builder: Builder, name: str, parts: Sequence[Value], axis: int, shape: Sequence[int]
) -> Pending:
    """Tensors one behind the other; each comes to the output's grid first."""
    order = channels_last(range(len(shape)))

    def emit(out: str, grid: Grid, activation: str) -> int:
        sources = [on(builder, grid, part, f"{out}.part{i}") for i, part in enumerate(parts)]
        return builder.operator(
            "CONCATENATION",
            [source.index for source in sources],
            builder.codes(out, shape, grid),
            axis=order.index(axis % len(shape)),
        )

    return Pending(name, emit, tuple(shape))


def hard_swish(builder: Builder, name: str, x: Value) -> Pending:
    """x · relu6(x + 3) / 6."""
    return _single(builder, "HARD_SWISH", name, x)


def gelu(builder: Builder, name: str, x: Value) -> Pending:
    """x · Φ(x)."""
    return _single(builder, "GELU", name, x)


def _probability(builder: Builder, name: str, x: Value) -> Value:
    return builder.place(_single(builder, "LOGISTIC", name, x), name, _PROBABILITY)


def sigmoid(builder: Builder, name: str, x: Value) -> Pending:
    """1 / (1 + exp(-x)), on the runtime's grid first."""

    def emit(out: str, grid: Grid, activation: str) -> int:
        value = _probability(builder, f"{out}.logistic", x)
        return requantized(builder, name, value).emit(out, grid, activation)

    return Pending(name, emit, x.shape)


def silu(builder: Builder, name: str, x: Value) -> Pending:
    """x · sigmoid(x)."""

    def emit(out: str, grid: Grid, activation: str) -> int:
        gate = _probability(builder, f"{out}.logistic", x)
        return pair(builder, "MUL", name, x, gate, x.shape).emit(out, grid, activation)

    return Pending(name, emit, x.shape, fuses=True)


def hard_sigmoid(builder: Builder, name: str, x: Value) -> Pending:
    """relu6(x + 3) / 6: a sum on six times the steps, and a product by 1/6 that moves no code."""

    def emit(out: str, grid: Grid, activation: str) -> int:
        rank = len(x.shape)
        three = Grid(np.float32(3 / 127), 0)
        offset = Value(builder.scalar("three", 127, three, rank), three, (1,) * rank)
        wide = Grid(np.float32(6) * grid.scale, grid.zero_point, grid.low)
        sum_ = pair(builder, "ADD", name, x, offset, x.shape).clipped(0.0, 6.0)
        total = builder.place(sum_, f"{out}.six", wide)
        sixth = Grid(np.float32(1 / 6 / 127), 0)
        factor = Value(builder.scalar("sixth", 127, sixth, rank), sixth, (1,) * rank)
        return pair(builder, "MUL", name, total, factor, x.shape).emit(out, grid, activation)

    return Pending(name, emit, x.shape, fuses=True)


Activation = Callable[[Builder, str, Value], Pending]
