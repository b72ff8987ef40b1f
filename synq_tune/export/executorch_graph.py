"""The network as ExecuTorch's backends recognise integers: float operations between grids of int8.

Every grid lies at the top of int8, so that saturation clips what is above it, whatever its bits; a
`hardtanh`, which backends fuse into the layer before, clips what is below where something can be.
Declared limits other than int8's own are ignored by XNNPACK, and a `clamp` is computed wrongly.
"""

from __future__ import annotations

import torch
import torch.ao.quantization.fx._decomposed  # registers the operations below
import torch.nn.functional as F
from torch import Tensor, fx, nn

from synq_tune.errors import InputError
from synq_tune.export.hardware import input_grid, prepared
from synq_tune.export.options import HARDWARE
from synq_tune.graph.nodes import find_nodes, module_of, operation
from synq_tune.graph.operations import is_passthrough
from synq_tune.quantization.frozen import (
    FrozenActivation,
    FrozenConv2d,
    FrozenLinear,
    FrozenWeight,
    StandaloneModel,
    frozen_layers,
    replace_module,
)

_OPS = torch.ops.quantized_decomposed
_LOW, _HIGH = -128, 127
_FROM_ZERO = (nn.ReLU, nn.ReLU6, nn.Hardsigmoid, nn.Sigmoid)
_FROM_ZERO_TARGETS = (F.relu, F.relu6, torch.relu, "relu", torch.sigmoid, "sigmoid", F.hardsigmoid)
_MEANS = (nn.AdaptiveAvgPool2d, nn.AvgPool2d)


def _codes_of(x: Tensor, scale: float, zero_point: int) -> Tensor:
    return _OPS.quantize_per_tensor(x, scale, zero_point, _LOW, _HIGH, torch.int8)


def _values_of(codes: Tensor, scale: float, zero_point: int) -> Tensor:
    return _OPS.dequantize_per_tensor(codes, scale, zero_point, _LOW, _HIGH, torch.int8)


class Int8Activation(nn.Module):
    """A grid of k bits in the upper end of int8."""

    def __init__(self, grid: FrozenActivation, clips_below: bool) -> None:
        super().__init__()
        self.scale = float(grid.scale)
        lowest = _HIGH - (2**grid.bits - 1)
        # Ours is added to a code, counted from -2^(k-1); ExecuTorch's is taken from one.
        self.zero_point = lowest + 2 ** (grid.bits - 1) - int(grid.zero_point)
        self.range = tuple((code - self.zero_point) * self.scale for code in (lowest, _HIGH))
        self.clips_below = clips_below

    def forward(self, x: Tensor) -> Tensor:
        """Codes."""
        if self.clips_below:
            x = F.hardtanh(x, *self.range)
        return _codes_of(x, self.scale, self.zero_point)


class Int8Weight(nn.Module):
    """A layer's weight from its codes, per output channel, without zero points."""

    def __init__(self, weight: FrozenWeight) -> None:
        super().__init__()
        self.register_buffer("codes", weight.codes)
        self.register_buffer("scale", weight.scale)
        self.register_buffer("zero_point", torch.zeros_like(weight.scale, dtype=torch.int64))

    def forward(self) -> Tensor:
        return _OPS.dequantize_per_channel(
            self.codes, self.scale, self.zero_point, 0, -_HIGH, _HIGH, torch.int8
        )


class Int8Network(nn.Module):
    """Images (N, C, H, W) in [0, 1], or normalised, to logits (N, K) on an int8 grid."""

    def __init__(
        self, model: StandaloneModel, logits: tuple[float, int], normalize: bool = True
    ) -> None:
        super().__init__()
        self.network = _in_int8(model)
        self.logits = logits
        self.normalize = normalize
        self.register_buffer("mean", model.mean)
        self.register_buffer("std", model.std)

    def forward(self, images: Tensor) -> Tensor:
        x = (images - self.mean) / self.std if self.normalize else images
        return _values_of(_codes_of(self.network(x), *self.logits), *self.logits)


def logit_grid(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of an int8 grid over [low, high], where low < 0 < high."""
    scale = max(high - low, 1e-8) / (_HIGH - _LOW)
    return scale, max(_LOW, min(_HIGH, round(_LOW - low / scale)))


def _in_int8(model: StandaloneModel) -> fx.GraphModule:
    """The hardware form of the network on int8 grids.

    Raises:
        InputError: a layer reads a float; the message names it.
    """
    frozen = prepared(model.frozen, HARDWARE).cpu()
    _refuse_floats(frozen)
    nodes = find_nodes(frozen, lambda n, m: isinstance(m, FrozenActivation))
    grids = [module_of(frozen, node) for node in nodes]
    clipped = [
        grid.bits < 8 and not _covers(frozen, grid, node.args[0])
        for node, grid in zip(nodes, grids, strict=True)
    ]
    for node, grid, clips in zip(nodes, grids, clipped, strict=True):
        new = Int8Activation(grid, clips)
        replace_module(frozen, str(node.target), new)
        _give_each_reader_values(frozen, node, new)
    for name, weight in frozen_layers(frozen).items():
        replace_module(frozen, f"{name}.frozen_weight", Int8Weight(weight))
    frozen.recompile()
    return frozen.eval()


def _give_each_reader_values(frozen: fx.GraphModule, node: fx.Node, grid: Int8Activation) -> None:
    """Let each reader turn codes into values itself: ExecuTorch 1.5 cuts a network into parts, and
    where two parts share values it can find that each needs the other."""
    for user in list(node.users):
        with frozen.graph.inserting_after(node):
            own = frozen.graph.call_function(_values_of, (node, grid.scale, grid.zero_point))
        user.replace_input_with(node, own)


def _refuse_floats(frozen: fx.GraphModule) -> None:
    for node in find_nodes(frozen, lambda n, m: isinstance(m, FrozenConv2d | FrozenLinear)):
        if input_grid(frozen, node) is None:
            raise InputError(
                f"`every layer reads integers` must hold for ExecuTorch, but got {node.target}, which "
                "reads a float. Quantize with quantizer: deploy."
            )


def _covers(frozen: fx.GraphModule, grid: FrozenActivation, source: object) -> bool:
    """Whether nothing that the grid reads lies below it."""
    starts_at_zero = int(grid.zero_point) == 2 ** (grid.bits - 1)
    return starts_at_zero and _is_positive(frozen, source)


def _is_positive(frozen: fx.GraphModule, node: object) -> bool:
    """Whether no value of the node is below 0, as far as the graph tells."""
    if not isinstance(node, fx.Node):
        return False
    module = module_of(frozen, node)
    if isinstance(module, _FROM_ZERO) or operation(node) in _FROM_ZERO_TARGETS:
        return True
    if isinstance(module, FrozenActivation):
        return int(module.zero_point) == 2 ** (module.bits - 1)
    moves = is_passthrough(frozen, node) or isinstance(module, _MEANS)
    return moves and _is_positive(frozen, node.args[0])
