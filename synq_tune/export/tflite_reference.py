"""A .tflite file computed in PyTorch, operator by operator, as one family of kernels does.

It reads what the file says and nothing of the network it came from. What it gives is compared with
the interpreter's codes, of which none may differ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from synq_tune.errors import InputError
from synq_tune.export.tflite_arithmetic import (
    Family,
    fixed_factor,
    fixed_hard_swish,
    float_scaled,
    half_away,
    once_scaled,
    rounding_shift,
    scaled,
)
from synq_tune.export.tflite_arithmetic import doubling_high as high
from synq_tune.export.tflite_schema import constant, operators, schema


def reference_codes(model: Any, images: Tensor, family: Family) -> dict[int, Tensor]:
    """Values of every tensor of the graph, by its index.

    Args:
        model: see `tflite_schema.read_model`.
        images: (N, C, H, W) float32 in [0, 1].
        family: of the kernels.

    Returns:
        int64 codes, or float32 where the file's tensor is that, as the file lays them out.

    Raises:
        InputError: the file has an operator that `write_tflite` never writes.
    """
    run = _Reference(model, family)
    (source,) = model.subgraphs[0].inputs
    run.values[int(source)] = images.float().permute(0, 2, 3, 1).contiguous()
    for name, node in operators(model):
        kernel = _KERNELS.get(name)
        if kernel is None:
            raise InputError(f"`the reference knows the operator` must hold, but got {name}.")
        run.values[int(node.outputs[0])] = kernel(run, node, node.builtinOptions)
    return run.values


class _Reference:
    def __init__(self, model: Any, family: Family) -> None:
        self.model, self.family = model, family
        self.values: dict[int, Tensor] = {}

    def read(self, index: int) -> Tensor:
        if index not in self.values:
            values = torch.from_numpy(np.array(constant(self.model, index)))
            self.values[index] = values if values.is_floating_point() else values.long()
        return self.values[index]

    def grid(self, index: int) -> tuple[np.float32, int]:
        """Scale and zero point of a tensor with one of each."""
        about = self.model.subgraphs[0].tensors[index].quantization
        return np.float32(about.scale[0]), int(about.zeroPoint[0])

    def scales(self, index: int) -> np.ndarray:
        return np.asarray(self.model.subgraphs[0].tensors[index].quantization.scale, np.float32)

    def shifted(self, index: int) -> Tensor:
        """Codes without their zero point."""
        return self.read(index) - self.grid(index)[1]

    def ends(self, index: int, activation: int = 0) -> tuple[int, int]:
        """The codes that a fused activation leaves."""
        scale, zero = self.grid(index)
        kinds = schema().ActivationFunctionType
        low, high_ = -128, 127
        if activation in (kinds.RELU, kinds.RELU6):
            low = max(low, zero)
        if activation == kinds.RELU6:
            high_ = min(high_, zero + int(half_away(torch.tensor(np.float32(6.0) / scale))))
        return low, high_

    def finish(self, x: Tensor, index: int, activation: int = 0) -> Tensor:
        """Add the zero point and saturate."""
        return (x + self.grid(index)[1]).clamp(*self.ends(index, activation))


def _layer(
    run: _Reference,
    node: Any,
    product: Callable[[Tensor, Tensor], Tensor],
    rounds_once: bool = False,
) -> Tensor:
    """An accumulator of 32 bits, and its code; float64 adds such whole numbers without rounding."""
    x, weight, bias = (int(i) for i in node.inputs)
    out = int(node.outputs[0])
    total = product(run.shifted(x).double(), run.read(weight).double()).long() + run.read(bias)
    scales, (in_scale, _), (out_scale, _) = run.scales(weight), run.grid(x), run.grid(out)
    exact = np.float64(in_scale) * scales.astype(np.float64) / np.float64(out_scale)
    if run.family == "fixed" and rounds_once:
        codes = once_scaled(total, exact.tolist())
    else:
        codes = scaled(total, run.family, in_scale * scales / out_scale, exact)
    return run.finish(codes, out, node.builtinOptions.fusedActivationFunction)


def _conv(run: _Reference, node: Any, about: Any) -> Tensor:
    def product(x: Tensor, weight: Tensor) -> Tensor:
        x, filters = x.permute(0, 3, 1, 2), weight.permute(0, 3, 1, 2)
        return _convolved(x, filters, about, x.shape[1] // filters.shape[1])

    return _layer(run, node, product)


def _depthwise(run: _Reference, node: Any, about: Any) -> Tensor:
    def product(x: Tensor, weight: Tensor) -> Tensor:
        x, filters = x.permute(0, 3, 1, 2), weight.permute(3, 0, 1, 2)
        return _convolved(x, filters, about, x.shape[1])

    return _layer(run, node, product)


def _convolved(x: Tensor, filters: Tensor, about: Any, groups: int) -> Tensor:
    stride = (about.strideH, about.strideW)
    dilation = (about.dilationHFactor, about.dilationWFactor)
    if about.padding == schema().Padding.SAME:
        x = F.pad(x, _same(x.shape, filters.shape, stride, dilation))
    out = F.conv2d(x, filters, stride=stride, dilation=dilation, groups=groups)
    return out.permute(0, 2, 3, 1)


def _same(shape: Any, filters: Any, stride: Any, dilation: Any) -> tuple[int, ...]:
    pads = []
    for axis in (1, 0):  # the last axis first
        size, extent = shape[2 + axis], dilation[axis] * (filters[2 + axis] - 1) + 1
        total = max((-(-size // stride[axis]) - 1) * stride[axis] + extent - size, 0)
        pads += [total // 2, total - total // 2]
    return tuple(pads)


def _linear(run: _Reference, node: Any, about: Any) -> Tensor:
    return _layer(run, node, lambda x, weight: x.flatten(1) @ weight.T, rounds_once=True)


def _add(run: _Reference, node: Any, about: Any) -> Tensor:
    (a, b), out = (int(i) for i in node.inputs), int(node.outputs[0])
    scales = [np.float64(run.grid(i)[0]) for i in (a, b, out)]
    add = _fixed_sum if run.family == "fixed" else _xnnpack_sum
    total = add(run.shifted(a), run.shifted(b), *scales)
    return run.finish(total, out, about.fusedActivationFunction)


def _fixed_sum(a: Tensor, b: Tensor, sa: float, sb: float, so: float) -> Tensor:
    """Both sides on a common grid with 20 more bits; three roundings."""
    twice = 2 * max(sa, sb)
    sides = [_shrunk(x << 20, s / twice) for x, s in ((a, sa), (b, sb))]
    return _shrunk(sides[0] + sides[1], twice / (2**20 * so))


def _shrunk(x: Tensor, factor: float) -> Tensor:
    """x · factor, with a factor below 1."""
    m, e = fixed_factor(factor)
    return rounding_shift(high(x, m), -e)


def _xnnpack_sum(a: Tensor, b: Tensor, sa: float, sb: float, so: float) -> Tensor:
    """Whole factors of 21 bits, one sum, one rounding, half up."""
    factors = [np.float32(s) / np.float32(so) for s in (sa, sb)]
    shift = 20 - (int(np.frexp(max(factors))[1]) - 1)
    whole = [int(np.rint(np.ldexp(np.float64(f), shift))) for f in factors]
    return (a * whole[0] + b * whole[1] + (1 << (shift - 1))) >> shift


def _mul(run: _Reference, node: Any, about: Any) -> Tensor:
    (a, b), out = (int(i) for i in node.inputs), int(node.outputs[0])
    (sa, _), (sb, _), (so, _) = (run.grid(i) for i in (a, b, out))
    factor = np.float32(sa * sb) / so
    product = run.shifted(a) * run.shifted(b)
    codes = scaled(product, run.family, factor, np.float64(factor))
    return run.finish(codes, out, about.fusedActivationFunction)


def _mean(run: _Reference, node: Any, about: Any) -> Tensor:
    x, out = int(node.inputs[0]), int(node.outputs[0])
    codes = run.shifted(x)
    count = codes.shape[1] * codes.shape[2]
    total = codes.sum((1, 2), keepdim=True)
    (sx, _), (so, _) = run.grid(x), run.grid(out)
    if run.family == "float":
        return run.finish(float_scaled(total, np.float32(sx / so) / np.float32(count)), out)
    return run.finish(_fixed_mean(total, count, np.float64(sx) / np.float64(so)), out)


def _fixed_mean(total: Tensor, count: int, factor: float) -> Tensor:
    """The factor of the grids divided by the number of values, in whole numbers."""
    m, e = fixed_factor(factor)
    shift = min(count.bit_length() - 1, 32, 31 + e)
    m, e = (m << shift) // count, e - shift
    return rounding_shift(high(total << max(e, 0), m), max(-e, 0))


def _quantize(run: _Reference, node: Any, about: Any) -> Tensor:
    x, out = int(node.inputs[0]), int(node.outputs[0])
    (scale, zero), values = run.grid(out), run.read(x)
    if values.is_floating_point():
        if run.family == "fixed":
            return run.finish(half_away(values / float(scale)).long(), out)
        inverse = float(np.float32(1) / scale)
        return run.finish((values * inverse).clamp(-1e6, 1e6).round().long(), out)
    ratio = run.grid(x)[0] / scale
    if run.family == "float":
        factor = int(np.rint(np.float32(256) * ratio))
        return ((run.shifted(x) * factor + (zero << 8) + 128) >> 8).clamp(-128, 127)
    exact = np.float64(run.grid(x)[0]) / np.float64(scale)
    return run.finish(scaled(run.shifted(x), "fixed", ratio, exact), out)


def _dequantize(run: _Reference, node: Any, about: Any) -> Tensor:
    x = int(node.inputs[0])
    return run.shifted(x).float() * float(run.grid(x)[0])


def _pad(run: _Reference, node: Any, about: Any) -> Tensor:
    x = int(node.inputs[0])
    pads = [p for pair in run.read(int(node.inputs[1])).tolist()[::-1] for p in pair]
    code = int(run.read(int(node.inputs[2]))) if len(node.inputs) > 2 else run.grid(x)[1]
    return F.pad(run.read(x), pads, value=code)


def _max_pool(run: _Reference, node: Any, about: Any) -> Tensor:
    x = run.read(int(node.inputs[0])).permute(0, 3, 1, 2).double()
    size, stride = (about.filterHeight, about.filterWidth), (about.strideH, about.strideW)
    return F.max_pool2d(x, size, stride).permute(0, 2, 3, 1).long()


def _slice(run: _Reference, node: Any, about: Any) -> Tensor:
    x, *tables = (run.read(int(i)) for i in node.inputs)
    parts = [slice(*(int(t[axis]) for t in tables)) for axis in range(1, x.dim())]
    return x[(slice(None), *parts)]


def _concatenation(run: _Reference, node: Any, about: Any) -> Tensor:
    return torch.cat([run.read(int(i)) for i in node.inputs], about.axis)


def _hard_swish(run: _Reference, node: Any, about: Any) -> Tensor:
    x, out = int(node.inputs[0]), int(node.outputs[0])
    (sx, _), (so, _) = run.grid(x), run.grid(out)
    # XNNPACK leaves it to LiteRT's own kernel.
    return run.finish(fixed_hard_swish(run.shifted(x), sx, so), out)


def _table(run: _Reference, node: Any, function: Callable[[Tensor], Tensor]) -> Tensor:
    """A function of single values in float32, rounded to the nearest code."""
    x, out = int(node.inputs[0]), int(node.outputs[0])
    values = function(run.shifted(x).float() * float(run.grid(x)[0]))
    return run.finish((values / float(run.grid(out)[0])).round().long(), out)


def _logistic(run: _Reference, node: Any, about: Any) -> Tensor:
    return _table(run, node, torch.sigmoid)


def _gelu(run: _Reference, node: Any, about: Any) -> Tensor:
    return _table(run, node, F.gelu)


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda run, node, about: function(*(run.read(int(i)) for i in node.inputs))


_KERNELS: dict[str, Callable[[_Reference, Any, Any], Tensor]] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _linear,
    "ADD": _add,
    "MUL": _mul,
    "MEAN": _mean,
    "QUANTIZE": _quantize,
    "DEQUANTIZE": _dequantize,
    "PAD": _pad,
    "PADV2": _pad,
    "MAX_POOL_2D": _max_pool,
    "STRIDED_SLICE": _slice,
    "CONCATENATION": _concatenation,
    "RESHAPE": lambda run, node, about: run.read(int(node.inputs[0])).flatten(1),
    "HARD_SWISH": _hard_swish,
    "LOGISTIC": _logistic,
    "GELU": _gelu,
    "SUB": _binary(torch.sub),
    "DIV": _binary(torch.div),
    "MAXIMUM": _binary(torch.maximum),
    "MINIMUM": _binary(torch.minimum),
}
