"""A .tflite file under construction: tensors, constants and operators, and the grids between them.

Values are int8 with one scale and zero point, laid out as (N, H, W, C). A grid of k < 8 bits lies
at the top of int8: above it values saturate by themselves, and ReLU clips below it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from synq_tune.errors import InputError
from synq_tune.export.tflite_schema import packed, schema
from synq_tune.quantization.frozen import FrozenActivation

INT8 = (-128, 127)


@dataclass(frozen=True)
class Grid:
    """The grid of an int8 tensor: real value = (code - zero_point) · scale, low <= code <= 127."""

    scale: np.float32
    zero_point: int
    low: int = -128

    def code(self, value: float) -> int:
        """The code of a real value as the runtime rounds it, before any clipping."""
        ratio = np.float32(value) / self.scale
        return self.zero_point + int(np.trunc(ratio + np.copysign(np.float32(0.5), ratio)))


def grid_of(name: str, activation: FrozenActivation) -> Grid:
    """A frozen grid in int8.

    Raises:
        InputError: the zero point is no int8, as of values far from 0.
    """
    low = 128 - 2**activation.bits
    zero_point = low + 2 ** (activation.bits - 1) - int(activation.zero_point)
    if not INT8[0] <= zero_point <= INT8[1]:
        raise InputError(
            "`zero points of values fit int8` must hold for LiteRT, but got "
            f"activation={name} with zero_point={zero_point}. Use --format onnx."
        )
    return Grid(np.float32(activation.scale.item()), zero_point, low)


@dataclass(frozen=True)
class Value:
    """A tensor of the graph; `flat` is (C, H, W) where one axis holds an image in (H, W, C)."""

    index: int
    grid: Grid
    shape: tuple[int, ...]
    """As in PyTorch, (N, C, H, W) or (N, C)."""
    flat: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Pending:
    """An operation that is not written yet, since its grid comes behind it."""

    name: str
    emit: Callable[[str, Grid, str], int]
    """(name of the output, its grid, fused activation) → the output's tensor."""
    shape: tuple[int, ...]
    fuses: bool = False
    """Whether the operator can clip by itself."""
    low: float = -np.inf
    high: float = np.inf
    """What the network clips to before the grid does."""
    flat: tuple[int, int, int] | None = None
    """As a `Value`'s."""

    def clipped(self, low: float, high: float) -> Pending:
        """The same with its values clipped once more."""
        return replace(self, low=max(self.low, low), high=min(self.high, high))


@dataclass
class Builder:
    """Collects the parts of a file."""

    model: Any = field(default_factory=lambda: _empty())
    _constants: dict[tuple[Any, ...], int] = field(default_factory=dict)

    @property
    def graph(self) -> Any:
        return self.model.subgraphs[0]

    def value(self, name: str, shape: Sequence[int], grid: Grid | None) -> int:
        """A tensor that the graph computes, of any number of images; no grid: float32."""
        kind = schema().TensorType
        tensor = self._tensor(name, (1, *shape[1:]), kind.FLOAT32 if grid is None else kind.INT8)
        tensor.shapeSignature = np.array([-1, *shape[1:]], np.int32)
        if grid is not None:
            tensor.quantization = quantization([grid.scale], [grid.zero_point])
        return self._add(tensor)

    def codes(self, name: str, shape: Sequence[int], grid: Grid) -> int:
        """An int8 tensor of a shape as in PyTorch."""
        return self.value(name, channels_last(shape), grid)

    def constant(
        self, name: str, values: np.ndarray, container: str, scales: Any = None, axis: int = 0
    ) -> int:
        """A constant tensor; the same one again for the same name."""
        key = (name, container, values.tobytes(), None if scales is None else scales.tobytes())
        if key not in self._constants:
            tensor = self._tensor(name, values.shape, getattr(schema().TensorType, container))
            tensor.buffer = self.buffer(packed(values) if container == "INT4" else values)
            if scales is not None:
                tensor.quantization = quantization(scales, np.zeros(len(scales)), axis)
            self._constants[key] = self._add(tensor)
        return self._constants[key]

    def scalar(self, name: str, code: int, grid: Grid, rank: int) -> int:
        """A constant of one code on a grid."""
        index = self.constant(name, np.full((1,) * rank, code, np.int8), "INT8")
        self.on_grid(index, grid)
        return index

    def on_grid(self, index: int, grid: Grid) -> None:
        """Give a constant tensor of codes its grid."""
        self.graph.tensors[index].quantization = quantization([grid.scale], [grid.zero_point])

    def operator(self, name: str, inputs: Sequence[int], output: int, **options: Any) -> int:
        """An operator with one output, which is returned; `options` as in the schema."""
        node = schema().OperatorT()
        node.opcodeIndex = self._opcode(name)
        node.inputs, node.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        _set_options(node, name, options)
        self.graph.operators.append(node)
        return output

    def place(self, pending: Pending, name: str, grid: Grid) -> Value:
        """Write a pending operation with its output on the grid."""
        wanted = _interval(pending, grid)
        fits = [a for a, interval in _fused(grid).items() if interval == wanted]
        activation = next(iter(fits), "NONE") if pending.fuses else "NONE"
        rest = wanted if _fused(grid)[activation] != wanted else INT8
        raw = name if rest == INT8 else f"{name}.unclipped"
        index = pending.emit(raw, grid, activation)
        for bound, end, operator in zip(rest, INT8, ("MAXIMUM", "MINIMUM"), strict=True):
            if bound != end:
                index = self._clip(operator, index, name, bound, grid, pending.shape)
        return Value(index, grid, pending.shape, pending.flat)

    def _clip(
        self, operator: str, index: int, name: str, bound: int, grid: Grid, shape: tuple[int, ...]
    ) -> int:
        suffix = "" if operator == "MAXIMUM" else ".below"
        edge = self.scalar(f"{name}.{operator.lower()}", bound, grid, len(shape))
        return self.operator(operator, [index, edge], self.codes(name + suffix, shape, grid))

    def buffer(self, values: np.ndarray | bytes) -> int:
        """A new buffer with these bytes."""
        buffer = schema().BufferT()
        raw = values if isinstance(values, bytes) else np.ascontiguousarray(values).tobytes()
        buffer.data = np.frombuffer(raw, np.uint8)
        self.model.buffers.append(buffer)
        return len(self.model.buffers) - 1

    def describe(self, name: str, text: str) -> None:
        """Store a text as an entry of the file's metadata."""
        entry = schema().MetadataT()
        entry.name, entry.buffer = name, self.buffer(text.encode())
        self.model.metadata.append(entry)

    def drop_unread(self) -> None:
        """Drop operators whose output nobody reads."""
        read = set(self.graph.outputs)
        kept = []
        for node in reversed(self.graph.operators):
            if read.intersection(node.outputs.tolist()):
                read.update(node.inputs.tolist())
                kept.append(node)
        self.graph.operators = kept[::-1]
        self._drop_tensors(read)

    def _drop_tensors(self, read: set[int]) -> None:
        kept = [i for i in range(len(self.graph.tensors)) if i in read]
        new = {old: i for i, old in enumerate(kept)}
        self.graph.tensors = [self.graph.tensors[i] for i in kept]
        for node in self.graph.operators:
            node.inputs = np.array([new[i] for i in node.inputs], np.int32)
            node.outputs = np.array([new[i] for i in node.outputs], np.int32)
        self.graph.inputs = [new[i] for i in self.graph.inputs]
        self.graph.outputs = [new[i] for i in self.graph.outputs]
        self._drop_buffers()

    def _drop_buffers(self) -> None:
        old = self.model.buffers
        self.model.buffers = old[:1]
        for holder in (*self.graph.tensors, *self.model.metadata):
            if holder.buffer:
                self.model.buffers.append(old[holder.buffer])
                holder.buffer = len(self.model.buffers) - 1

    def _tensor(self, name: str, shape: Sequence[int], kind: int) -> Any:
        tensor = schema().TensorT()
        tensor.name, tensor.type, tensor.buffer = name, kind, 0
        tensor.shape, tensor.hasRank = np.array(shape, np.int32), True
        return tensor

    def _add(self, tensor: Any) -> int:
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def _opcode(self, name: str) -> int:
        code = getattr(schema().BuiltinOperator, name)
        known = [entry.builtinCode for entry in self.model.operatorCodes]
        if code not in known:
            entry = schema().OperatorCodeT()
            # Old readers look at the byte, new ones at the larger of both.
            entry.builtinCode, entry.deprecatedBuiltinCode = code, min(code, 127)
            entry.version = _VERSIONS.get(name, 1)
            self.model.operatorCodes.append(entry)
            known.append(code)
        return known.index(code)


_VERSIONS = {
    "CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "ADD": 2, "MUL": 2, "MEAN": 2,
    "QUANTIZE": 2, "DEQUANTIZE": 2, "CONCATENATION": 2, "MAX_POOL_2D": 2, "PAD": 2, "PADV2": 2,
    "MAXIMUM": 2, "MINIMUM": 2, "LOGISTIC": 2, "STRIDED_SLICE": 2, "GELU": 2,
}  # fmt: skip
"""The first version of each operator that knows int8; 1 where all do."""
_OPTIONS = {
    "CONV_2D": "Conv2DOptions", "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions", "ADD": "AddOptions", "MUL": "MulOptions",
    "SUB": "SubOptions", "DIV": "DivOptions", "MEAN": "ReducerOptions",
    "CONCATENATION": "ConcatenationOptions", "MAX_POOL_2D": "Pool2DOptions",
    "RESHAPE": "ReshapeOptions", "STRIDED_SLICE": "StridedSliceOptions",
    "QUANTIZE": "QuantizeOptions", "DEQUANTIZE": "DequantizeOptions", "PAD": "PadOptions",
    "PADV2": "PadV2Options", "MAXIMUM": "MaximumMinimumOptions",
    "MINIMUM": "MaximumMinimumOptions", "HARD_SWISH": "HardSwishOptions", "GELU": "GeluOptions",
}  # fmt: skip
OPERATORS = frozenset(_VERSIONS) | frozenset(_OPTIONS)
"""All that files of ours have."""


def _set_options(node: Any, name: str, values: dict[str, Any]) -> None:
    kind = _OPTIONS.get(name)
    if kind is None:
        return
    options = getattr(schema(), f"{kind}T")()
    for key, value in values.items():
        setattr(options, key, value)
    node.builtinOptionsType = getattr(schema().BuiltinOptions, kind)
    node.builtinOptions = options


def activation_code(name: str) -> int:
    """The schema's number of a fused activation."""
    return getattr(schema().ActivationFunctionType, name)


def channels_last(shape: Sequence[int]) -> tuple[int, ...]:
    """(N, C, H, W) as (N, H, W, C); shapes of another rank stay."""
    shape = tuple(shape)
    return (shape[0], *shape[2:], shape[1]) if len(shape) == 4 else shape


def quantization(scales: Any, zero_points: Any, axis: int = 0) -> Any:
    """Scales and zero points of a tensor, per tensor or along an axis."""
    parameters = schema().QuantizationParametersT()
    parameters.scale = np.asarray(scales, np.float32)
    parameters.zeroPoint = np.asarray(zero_points, np.int64)
    parameters.quantizedDimension = axis
    return parameters


def _interval(pending: Pending, grid: Grid) -> tuple[int, int]:
    low = grid.low if pending.low == -np.inf else max(grid.low, grid.code(pending.low))
    high = INT8[1] if pending.high == np.inf else min(INT8[1], grid.code(pending.high))
    return low, high


def _fused(grid: Grid) -> dict[str, tuple[int, int]]:
    """The codes that each activation an operator can have leaves."""
    zero, six = grid.zero_point, min(INT8[1], grid.code(6.0))
    return {"NONE": INT8, "RELU": (zero, INT8[1]), "RELU6": (zero, six)}


def _empty() -> Any:
    parts = schema()
    model, graph = parts.ModelT(), parts.SubGraphT()
    graph.tensors, graph.operators, graph.inputs, graph.outputs = [], [], [], []
    graph.name = "student"
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], []
    model.buffers, model.metadata = [parts.BufferT()], []  # the first is that of no constant
    return model
