"""A network for integer hardware as a .tflite graph, node by node.

Operations wait (`Pending`) until the grid of their output is met, and then are written with
whatever clips in between. What the runtime has no operator for is refused by name.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from synq_tune.errors import InputError
from synq_tune.export import tflite_moves as moves
from synq_tune.export import tflite_pointwise as pointwise
from synq_tune.export.hardware import is_nothing
from synq_tune.export.pooling import GlobalAveragePool
from synq_tune.export.tflite_builder import Builder, Grid, Pending, Value, grid_of
from synq_tune.export.tflite_layers import Pads, convolution, linear
from synq_tune.graph.nodes import is_float, module_of, operation
from synq_tune.graph.operations import is_logits, is_sum
from synq_tune.models.preprocessing import Preprocessing
from synq_tune.quantization.frozen import FrozenActivation, FrozenConv2d, FrozenLinear

INPUT, OUTPUT = "images", "logits"
LOGITS = "logits.codes"

_CLIPS: dict[Any, tuple[float, float]] = {
    **dict.fromkeys((F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_"), (0.0, np.inf)),
    F.relu6: (0.0, 6.0),
}
_MODULES: dict[type[nn.Module], pointwise.Activation] = {
    nn.Hardswish: pointwise.hard_swish, nn.Hardsigmoid: pointwise.hard_sigmoid,
    nn.Sigmoid: pointwise.sigmoid, nn.SiLU: pointwise.silu,
    GlobalAveragePool: pointwise.global_average,
}  # fmt: skip
_FUNCTIONS: dict[Any, pointwise.Activation] = {
    F.hardswish: pointwise.hard_swish, F.hardsigmoid: pointwise.hard_sigmoid,
    F.sigmoid: pointwise.sigmoid, torch.sigmoid: pointwise.sigmoid, "sigmoid": pointwise.sigmoid,
    F.silu: pointwise.silu,
}  # fmt: skip
_PRODUCTS = (operator.mul, operator.imul, torch.mul, "mul", "mul_")
_CONCATENATIONS = (torch.cat, torch.concat, torch.concatenate)
_FLATTENING = (torch.flatten, torch.reshape, torch.squeeze, "flatten", "view", "reshape", "squeeze")


class Translation:
    """The graph of a prepared network (see `hardware.prepared`) in a `Builder`."""

    def __init__(
        self, frozen: fx.GraphModule, preprocessing: Preprocessing, logits: tuple[float, float]
    ) -> None:
        """Take the smallest and the largest logit, between which their 8-bit grid lies."""
        self.frozen, self.builder = frozen, Builder()
        self.activations: dict[str, Value] = {}
        """The tensor on each grid, by the grid's name in the network."""
        self.layers: dict[str, tuple[int, int, int] | None] = {}
        """Each layer, and the (C, H, W) of a linear one that reads (H, W, C) in one axis."""
        self._logits_grid = range_grid(*logits)
        self._values: dict[fx.Node, Value | Pending] = {}
        self._pads: dict[int, tuple[Value, Pads]] = {}
        self._preprocessing = preprocessing
        for node in frozen.graph.nodes:
            self._translate(node)

    def _translate(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self._values[node] = self._input(node)
        elif node.op == "output":
            self._finish(node)
        elif node.op != "get_attr" and is_float(node):  # sizes are read by none of what is written
            self._values[node] = self._node(node)

    def _input(self, node: fx.Node) -> Pending:
        """float32 images in [0, 1]: normalised in float, then on a grid."""
        build, about = self.builder, self._preprocessing
        shape = (1, about.channels, about.height, about.width)
        channels = (1, about.height, about.width, about.channels)
        images = build.value(INPUT, channels, None)
        build.graph.inputs = [images]
        for name, operator_ in (("mean", "SUB"), ("std", "DIV")):
            values = np.array(getattr(about, name), np.float32).reshape(1, 1, 1, -1)
            operands = [images, build.constant(name, values, "FLOAT32")]
            out = build.value(f"{INPUT}.{operator_.lower()}", channels, None)
            images = build.operator(operator_, operands, out)
        return Pending(
            str(node.target),
            lambda out, grid, _: build.operator(
                "QUANTIZE", [images], build.codes(out, shape, grid)
            ),
            shape,
        )

    def _finish(self, node: fx.Node) -> None:
        codes = self._read(node.args[0])
        out = self.builder.value(OUTPUT, codes.shape, None)
        self.builder.graph.outputs = [self.builder.operator("DEQUANTIZE", [codes.index], out)]

    def _node(self, node: fx.Node) -> Value | Pending:
        module, called = module_of(self.frozen, node), operation(node)
        source = self._values.get(node.args[0]) if self._reads_node(node) else None
        if isinstance(module, FrozenActivation):
            return self._on_grid(str(node.target), module, source)
        if is_nothing(node, module):
            return source
        clip = _clip_of(module, called)
        if clip is not None and isinstance(source, Pending):
            return source.clipped(*clip)
        return self._operation(node, module, called)

    @staticmethod
    def _reads_node(node: fx.Node) -> bool:
        return bool(node.args) and isinstance(node.args[0], fx.Node)

    def _on_grid(
        self, name: str, module: FrozenActivation, source: Value | Pending | None
    ) -> Value:
        if source is None:
            raise self._refusal(name, "a grid of what is no tensor")
        grid = grid_of(name, module)
        if isinstance(source, Pending):
            value = self.builder.place(source, name, grid)
        else:
            value = pointwise.on(self.builder, grid, source, name)
        self.activations[name] = value
        return value

    def _read(self, node: Any) -> Value:
        """What an operation reads, on its grid.

        Raises:
            InputError: it is in float.
        """
        value = self._values.get(node) if isinstance(node, fx.Node) else None
        if isinstance(value, Pending) and is_logits(self.frozen, node):
            value = self.builder.place(value, LOGITS, self._logits_grid)
            self._values[node] = value
        if isinstance(value, Value):
            return value
        if value is None:
            raise self._refusal(str(node), getattr(operation(node), "__name__", "a constant"))
        raise InputError(
            "`every value that an operation reads is on a grid` must hold for LiteRT, but got a float "
            f"behind {value.name}. Quantize with quantizer: deploy."
        )

    def _operation(self, node: fx.Node, module: nn.Module | None, called: Any) -> Value | Pending:
        name = str(node.target) if node.op == "call_module" else node.name
        shape = node.meta["shape"]
        written = (
            self._layer(node, name, module, shape)
            or self._activation(node, name, module, called)
            or self._join(node, name, called, shape)
            or self._pool(node, name, module, shape)
            or self._move(node, name, module, called, shape)
        )
        if written is None:
            what = (
                type(module).__name__ if module is not None else getattr(called, "__name__", called)
            )
            raise self._refusal(name, what)
        return written

    @staticmethod
    def _refusal(name: str, what: Any) -> InputError:
        return InputError(
            "`LiteRT has an integer operator for every operation` must hold, but got "
            f"{what} at {name}. Use --format onnx or --format hardware."
        )

    def _layer(
        self, node: fx.Node, name: str, module: nn.Module | None, shape: tuple[int, ...]
    ) -> Pending | None:
        if isinstance(module, FrozenConv2d):
            x = self._read(node.args[0])
            self._refuse_shift(name, module)
            self.layers[name] = None
            x, before = self._pads.get(x.index, (x, (0, 0, 0, 0)))
            return convolution(self.builder, name, module, x, shape, before)
        if isinstance(module, FrozenLinear) and len(shape) == 2:
            x = self._read(node.args[0])
            self._refuse_shift(name, module)
            self.layers[name] = x.flat
            return linear(self.builder, name, module, x, shape)
        return None

    @staticmethod
    def _refuse_shift(name: str, layer: FrozenConv2d | FrozenLinear) -> None:
        if layer.frozen_weight.zero_point.any():
            raise InputError(
                f"`weights have zero point 0` must hold for LiteRT, but not those of layer={name} do. "
                "Quantize with quantizer: deploy."
            )

    def _activation(
        self, node: fx.Node, name: str, module: nn.Module | None, called: Any
    ) -> Value | Pending | None:
        clip = _clip_of(module, called)
        if clip is not None:  # its input is on a grid already
            x = self._read(node.args[0])
            return replace(pointwise.requantized(self.builder, name, x), flat=x.flat).clipped(*clip)
        if type(module) is nn.BatchNorm2d and module.running_var is not None:
            return pointwise.batchnorm(self.builder, name, module, self._read(node.args[0]))
        write = _MODULES.get(type(module)) or _FUNCTIONS.get(called)
        if _is_gelu(module, called, node):
            write = pointwise.gelu
        if write is None:
            return None
        x = self._read(node.args[0])
        return replace(write(self.builder, name, x), flat=x.flat)

    def _join(
        self, node: fx.Node, name: str, called: Any, shape: tuple[int, ...]
    ) -> Pending | None:
        kind = "ADD" if is_sum(node) else "MUL" if called in _PRODUCTS else None
        if kind and len(node.all_input_nodes) > 1 and not node.kwargs:
            a, b = (self._read(arg) for arg in node.args[:2])
            same_layout = a.flat == b.flat and len(a.shape) == len(b.shape)
            if not same_layout:
                return None
            return replace(pointwise.pair(self.builder, kind, name, a, b, shape), flat=a.flat)
        if called in _CONCATENATIONS:
            parts = [self._read(arg) for arg in node.args[0]]
            axis = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
            if all(part.flat is None for part in parts):
                return pointwise.concatenation(self.builder, name, parts, axis, shape)
        return None

    def _pool(
        self, node: fx.Node, name: str, module: nn.Module | None, shape: tuple[int, ...]
    ) -> Value | Pending | None:
        module = module or _pool_of(node)
        if type(module) is nn.AdaptiveAvgPool2d:  # where the image is that small already
            x = self._read(node.args[0])
            return x if x.shape[2:] == tuple(shape)[2:] else None
        if type(module) is nn.AvgPool2d:
            x = self._read(node.args[0])
            if pointwise.is_plain_average(module, x, shape):
                return pointwise.average_pool(self.builder, name, module, x, shape)
        if type(module) is nn.MaxPool2d and moves.is_plain_max_pool(module):
            x = self._read(node.args[0])
            return moves.max_pool(self.builder, name, module, x, shape)
        return None

    def _move(
        self,
        node: fx.Node,
        name: str,
        module: nn.Module | None,
        called: Any,
        shape: tuple[int, ...],
    ) -> Value | None:
        if called is F.pad or isinstance(module, nn.ZeroPad2d):
            amounts = module.padding if module is not None else _zero_padding(node)
            fits = amounts is not None and len(shape) == 4 and min(amounts) >= 0
            return self._pad(node, name, amounts) if fits else None
        if called is operator.getitem and len(node.args) == 2:
            x = self._read(node.args[0])
            return moves.every_nth(self.builder, name, x, node.args[1], shape)
        if (isinstance(module, nn.Flatten) or called in _FLATTENING) and len(shape) == 2:
            x = self._read(node.args[0])
            whole = int(np.prod(x.shape[1:])) == shape[1]
            return moves.flatten(self.builder, name, x, shape) if whole else None
        return None

    def _pad(self, node: fx.Node, name: str, amounts: Any) -> Value:
        x = self._read(node.args[0])
        value = moves.constant_pad(self.builder, name, x, amounts)
        c0, c1, *pads = moves.pad_amounts(amounts)
        if not (c0 or c1):
            # A convolution that reads this takes the padding for its own.
            self._pads[value.index] = (x, tuple(pads))
        return value


def range_grid(low: float, high: float) -> Grid:
    """The int8 grid of values between two bounds, with 0 among its codes."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32(max(high - low, 1e-6) / 255)
    return Grid(scale, int(np.clip(np.rint(-128 - low / float(scale)), -128, 127)))


def _clip_of(module: nn.Module | None, called: Any) -> tuple[float, float] | None:
    if isinstance(module, nn.Hardtanh):  # ReLU6 is one
        return module.min_val, module.max_val
    return (0.0, np.inf) if isinstance(module, nn.ReLU) else _CLIPS.get(called)


def _is_gelu(module: nn.Module | None, called: Any, node: fx.Node) -> bool:
    exact = "none" in (getattr(module, "approximate", None), node.kwargs.get("approximate", "none"))
    return exact and (type(module) is nn.GELU or called is F.gelu)


def _zero_padding(node: fx.Node) -> Any:
    """The amounts of `F.pad`; None where it pads with something else than zeros."""
    mode = node.args[2] if len(node.args) > 2 else node.kwargs.get("mode", "constant")
    value = node.args[3] if len(node.args) > 3 else node.kwargs.get("value")
    amounts = node.args[1] if len(node.args) > 1 else node.kwargs.get("pad")
    plain = mode == "constant" and value in (None, 0) and len(amounts) <= 6
    return amounts if plain and all(isinstance(a, int) for a in amounts) else None


def _pool_of(node: fx.Node) -> nn.Module | None:
    """The module that does what a pooling function does."""
    kinds: dict[Any, Callable[..., nn.Module]] = {
        F.max_pool2d: nn.MaxPool2d, F.avg_pool2d: nn.AvgPool2d, torch.max_pool2d: nn.MaxPool2d,
    }  # fmt: skip
    kind = kinds.get(operation(node))
    return None if kind is None else kind(*node.args[1:], **node.kwargs)
