"""Operations that only move values, or drop some: their output is on their input's grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from synq_tune.export.tflite_builder import Builder, Value
from synq_tune.export.tflite_layers import pad, padded


def flatten(builder: Builder, name: str, x: Value, shape: Sequence[int]) -> Value:
    """An image's values in one axis; which is in the order (H, W, C) says `flat`."""
    if len(x.shape) == 2:
        return x
    length = int(np.prod(x.shape[1:]))
    size = builder.constant(f"{name}.shape", np.array([-1, length], np.int32), "INT32")
    out = builder.codes(name, (x.shape[0], length), x.grid)
    builder.operator("RESHAPE", [x.index, size], out, newShape=[-1, length])
    moved = any(side > 1 for side in x.shape[2:]) and x.shape[1] > 1
    return Value(out, x.grid, tuple(shape), x.shape[1:] if moved else None)


def pad_amounts(args: Sequence[int]) -> list[int]:
    """The (before, after) of C, H and W of `F.pad`'s list, which begins with the last axis."""
    pads = list(args) + [0] * (6 - len(args))
    return [pads[4], pads[5], pads[2], pads[3], pads[0], pads[1]]


def max_pool(
    builder: Builder, name: str, pool: nn.MaxPool2d, x: Value, shape: Sequence[int]
) -> Value:
    """Max pooling with what PyTorch adds around the image: nothing that could be the largest."""
    size, stride, side = (_pair(v) for v in (pool.kernel_size, pool.stride, pool.padding))
    past = [  # with ceil_mode the last window may end behind the padding
        max(0, (made - 1) * s + k - n - 2 * p)
        for made, s, k, n, p in zip(shape[2:], stride, size, x.shape[2:], side, strict=True)
    ]
    pads = (side[0], side[0] + past[0], side[1], side[1] + past[1])
    source, kind = padded(builder, f"{name}.padded", x, pads, (size, stride), shape, x.grid.low)
    out = builder.codes(name, shape, x.grid)
    builder.operator(
        "MAX_POOL_2D", [source], out, padding=kind, strideH=stride[0], strideW=stride[1],
        filterHeight=size[0], filterWidth=size[1],
    )  # fmt: skip
    return Value(out, x.grid, tuple(shape))


def is_plain_max_pool(pool: nn.MaxPool2d) -> bool:
    """Whether the runtime's max pooling can compute it: no gaps, and values alone."""
    return _pair(pool.dilation) == (1, 1) and not pool.return_indices


def every_nth(
    builder: Builder, name: str, x: Value, index: Any, shape: Sequence[int]
) -> Value | None:
    """`x[:, a:b:c, …]` of an image; None where it is something else."""
    slices = index if isinstance(index, tuple) else (index,)
    if len(x.shape) != 4 or not all(_is_forward(part) for part in slices):
        return None
    parts = [*slices, *[slice(None)] * (4 - len(slices))]
    ranges = [part.indices(size) for part, size in zip(parts, x.shape, strict=True)]
    if ranges[0] != (0, x.shape[0], 1):
        return None
    order = (0, 2, 3, 1)
    tables = [np.array([ranges[axis][i] for axis in order], np.int32) for i in range(3)]
    names = [f"{name}.{part}" for part in ("begin", "end", "stride")]
    operands = [builder.constant(n, t, "INT32") for n, t in zip(names, tables, strict=True)]
    out = builder.codes(name, shape, x.grid)
    # The images' axis is taken whole, however many there are.
    builder.operator("STRIDED_SLICE", [x.index, *operands], out, beginMask=1, endMask=1)
    return Value(out, x.grid, tuple(shape))


def _is_forward(part: Any) -> bool:
    return isinstance(part, slice) and (part.step is None or part.step > 0)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def constant_pad(builder: Builder, name: str, x: Value, amounts: Sequence[int]) -> Value:
    """`F.pad` with zeros."""
    return pad(builder, name, x, pad_amounts(amounts))
