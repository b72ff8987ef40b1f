"""Convolutions and linear layers as the runtime's operators: integer weights, int32 biases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from synq_tune.errors import InputError
from synq_tune.export.tflite_builder import Builder, Grid, Pending, Value, activation_code
from synq_tune.export.tflite_schema import schema
from synq_tune.quantization.frozen import FrozenConv2d, FrozenLinear, FrozenWeight

Pads = tuple[int, int, int, int]
"""Rows above and below, columns left and right."""


def convolution(
    builder: Builder, name: str, layer: FrozenConv2d, x: Value, shape: Sequence[int], before: Pads
) -> Pending:
    """A convolution of `x`, around which lie `before` and the layer's own padding, all zeros."""
    pads = tuple(a + b for a, b in zip(before, own_pads(layer), strict=True))
    return Pending(
        name,
        lambda out, grid, activation: _convolve(
            builder, name, layer, x, tuple(shape), pads, (out, grid, activation)
        ),
        tuple(shape),
        fuses=True,
    )


def _convolve(
    builder: Builder,
    name: str,
    layer: FrozenConv2d,
    x: Value,
    shape: tuple[int, ...],
    pads: Pads,
    place: tuple[str, Grid, str],
) -> int:
    out, grid, activation = place
    source, padding = padded(builder, f"{out}.padded", x, pads, window(layer), shape)
    deep = is_depthwise(layer)
    codes = layer.frozen_weight.codes.cpu().numpy()
    codes = codes.transpose(1, 2, 3, 0) if deep else codes.transpose(0, 2, 3, 1)
    operands = [source, *_parameters(builder, name, layer, codes, 3 if deep else 0, x.grid)]
    options = {"depthMultiplier": shape[1] // x.shape[1]} if deep else {}
    return builder.operator(
        "DEPTHWISE_CONV_2D" if deep else "CONV_2D",
        operands,
        builder.codes(out, shape, grid),
        padding=padding,
        strideH=layer.stride[0],
        strideW=layer.stride[1],
        dilationHFactor=layer.dilation[0],
        dilationWFactor=layer.dilation[1],
        fusedActivationFunction=activation_code(activation),
        **options,
    )


def is_depthwise(layer: FrozenConv2d) -> bool:
    """Whether each output channel reads one input channel of its own."""
    return layer.groups == layer.in_channels and layer.groups > 1


def own_pads(layer: FrozenConv2d) -> Pads:
    """The padding of a layer.

    Raises:
        InputError: it pads with something else than zeros.
    """
    if layer.padding_mode != "zeros":
        raise InputError(
            "`layers pad with zeros` must hold for LiteRT, but got "
            f"padding_mode={layer.padding_mode}. Use --format onnx."
        )
    if isinstance(layer.padding, str):  # "valid", or "same", where the odd row goes below
        reach = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        reach = reach if layer.padding == "same" else [0, 0]
        return tuple(p for r in reach for p in (r // 2, r - r // 2))
    return tuple(p for size in layer.padding for p in (size, size))


def window(layer: FrozenConv2d) -> tuple[tuple[int, int], tuple[int, int]]:
    """(extent, stride) of the layer's window by axis, dilation included."""
    extent = tuple(d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
    return extent, layer.stride


def padded(
    builder: Builder,
    name: str,
    x: Value,
    pads: Pads,
    window: tuple[tuple[int, int], tuple[int, int]],
    shape: tuple[int, ...],
    code: int | None = None,
) -> tuple[int, int]:
    """(tensor, the schema's padding) for windows over `x` with `pads` around it.

    The runtime knows no padding and one that depends on sizes. What is neither is an operator of
    its own, with `code` in the new places: by default the zero point's.
    """
    kind = schema().Padding
    if not any(pads):
        return x.index, kind.VALID
    if code is None and pads == _same(x.shape, window, shape):
        return x.index, kind.SAME
    return pad(builder, name, x, (0, 0, *pads), code).index, kind.VALID


def _same(
    shape: tuple[int, ...], window: tuple[tuple[int, int], tuple[int, int]], out: tuple[int, ...]
) -> Pads | None:
    """The rows and columns that SAME adds; None where it gives another size."""
    pads: list[int] = []
    for size, extent, stride, made in zip(shape[2:], *window, out[2:], strict=True):
        if made != -(-size // stride):
            return None
        total = max((made - 1) * stride + extent - size, 0)
        pads += [total // 2, total - total // 2]
    return tuple(pads)


def pad(
    builder: Builder, name: str, x: Value, pads: Sequence[int], code: int | None = None
) -> Value:
    """`x` (N, C, H, W) with (before, after) in C, H and W; code None is that of 0."""
    (c0, c1), (h0, h1), (w0, w1) = ((pads[i], pads[i + 1]) for i in (0, 2, 4))
    n, c, h, w = x.shape
    shape = (n, c + c0 + c1, h + h0 + h1, w + w0 + w1)
    table = np.array([[0, 0], [h0, h1], [w0, w1], [c0, c1]], np.int32)
    operands = [x.index, builder.constant("paddings", table, "INT32")]
    if code is not None and code != x.grid.zero_point:
        edge = builder.constant(f"{name}.code", np.array([code], np.int8), "INT8")
        builder.on_grid(edge, x.grid)
        operands.append(edge)
    index = builder.operator(
        "PAD" if len(operands) == 2 else "PADV2", operands, builder.codes(name, shape, x.grid)
    )
    return Value(index, x.grid, shape)


def linear(
    builder: Builder, name: str, layer: FrozenLinear, x: Value, shape: Sequence[int]
) -> Pending:
    """A linear layer of `x` (N, I)."""

    def emit(out: str, grid: Grid, activation: str) -> int:
        codes = layer.frozen_weight.codes.cpu().numpy()
        if x.flat is not None:
            codes = codes.reshape(-1, *x.flat).transpose(0, 2, 3, 1).reshape(codes.shape)
        return builder.operator(
            "FULLY_CONNECTED",
            [x.index, *_parameters(builder, name, layer, codes, 0, x.grid)],
            builder.codes(out, shape, grid),
            fusedActivationFunction=activation_code(activation),
        )

    return Pending(name, emit, tuple(shape), fuses=True)


def container_of(weight: FrozenWeight) -> str:
    """What holds the codes of a layer."""
    return "INT4" if weight.bits <= 4 else "INT8"


def _parameters(
    builder: Builder,
    name: str,
    layer: FrozenConv2d | FrozenLinear,
    codes: np.ndarray,
    axis: int,
    grid: Grid,
) -> list[int]:
    """The tensors of weight and bias."""
    weight = layer.frozen_weight
    scales = weight.scale.cpu().numpy()
    units = grid.scale * scales
    bias = _bias_codes(layer, units)
    return [
        builder.constant(f"{name}.weight", codes, container_of(weight), scales, axis),
        builder.constant(f"{name}.bias", bias, "INT32", units),
    ]


def _bias_codes(layer: FrozenConv2d | FrozenLinear, units: np.ndarray) -> np.ndarray:
    if layer.bias is None:
        return np.zeros(len(units), np.int32)
    if hasattr(layer, "bias_codes"):
        return layer.bias_codes.cpu().numpy()
    bias = layer.bias.detach().double().cpu() / torch.from_numpy(units).double()  # called twice
    return bias.round().clamp(-(2**30), 2**30).numpy().astype(np.int32)
