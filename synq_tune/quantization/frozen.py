"""A student as integers: the one source of every exported file.

Freezing drops the latent float weights and everything that learns. What is left are the integer
codes of each weight, the grids, and the float tensors between them (biases, BatchNorm); the forward
computes the student's logits to the bit on the same device.
"""

from __future__ import annotations

import contextlib
import copy

import torch
from torch import Tensor, fx, nn

from synq_tune.graph.nodes import find_nodes
from synq_tune.graph.taps import TokenTap
from synq_tune.models.preprocessing import Preprocessing
from synq_tune.quantization.affine import code_limits, dequantize, per_channel, quantize
from synq_tune.quantization.layers import QuantizedConv2d, QuantizedLinear
from synq_tune.quantization.primitives import on_grid
from synq_tune.quantization.student import activation_quantizers, weight_layers


class FrozenWeight(nn.Module):
    """The weight of one layer as integer codes, with the grid of each output channel."""

    def __init__(self, codes: Tensor, scale: Tensor, zero_point: Tensor, bits: int) -> None:
        """Take codes (O, …) of any integer type, scale (O,) and zero_point (O,), integer-valued.

        The zero point is kept as float32: a channel far from zero has one that no integer type of
        an exchange format may hold.
        """
        super().__init__()
        self.bits = bits
        self.register_buffer("codes", codes.to(torch.int8))
        self.register_buffer("scale", scale.float())
        self.register_buffer("zero_point", zero_point.float())

    def forward(self) -> Tensor:
        """The real weight, (O, …)."""
        grid = per_channel(self.scale, self.codes), per_channel(self.zero_point, self.codes)
        return dequantize(self.codes.float(), *grid)


class FrozenActivation(nn.Module):
    """A constant grid for one activation, per tensor."""

    def __init__(self, scale: Tensor, zero_point: Tensor, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.register_buffer("scale", scale.float())
        self.register_buffer("zero_point", zero_point.float())

    def codes(self, x: Tensor) -> Tensor:
        """Codes of `x` counted from 0, as uint8."""
        signed = quantize(x, self.scale, self.zero_point, self.bits)
        return (signed + 2 ** (self.bits - 1)).to(torch.uint8)

    def forward(self, x: Tensor) -> Tensor:
        # Nothing flows back through rounding, and in parts it takes a third of the time.
        return on_grid(x.detach(), self.scale, self.zero_point, code_limits(self.bits))


class FrozenConv2d(nn.Conv2d):
    """nn.Conv2d whose weight is a FrozenWeight."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.frozen_weight(), self.bias)


class FrozenLinear(nn.Linear):
    """nn.Linear whose weight is a FrozenWeight."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.frozen_weight(), self.bias)


FROZEN_LAYERS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: FrozenConv2d,
    nn.Linear: FrozenLinear,
    QuantizedConv2d: FrozenConv2d,
    QuantizedLinear: FrozenLinear,
}


def frozen_layer(layer: nn.Module, weight: nn.Module) -> nn.Module:
    """A copy of `layer`, plain or quantized, that takes its weight from `weight`."""
    new = copy.deepcopy(layer)
    new.__class__ = FROZEN_LAYERS[type(layer)]
    for name in ("weight", "weight_quantizer"):
        if hasattr(new, name):
            delattr(new, name)
    new.frozen_weight = weight
    return new.requires_grad_(False)


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` where `model` has its submodule `name`."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


@torch.no_grad()
def freeze(student: fx.GraphModule) -> fx.GraphModule:
    """A copy of a calibrated student whose weights are integer codes and whose grids are constant.

    Returns:
        Graph without taps, in evaluation mode, without gradients; it gives exactly the student's
        logits on the student's device.
    """
    frozen = copy.deepcopy(student)
    for name, layer in weight_layers(frozen).items():
        replace_module(frozen, name, frozen_layer(layer, _frozen_weight(layer)))
    for name, quantizer in activation_quantizers(frozen).items():
        grid = (value.detach().clone() for value in quantizer.qparams())
        replace_module(frozen, name, FrozenActivation(*grid, quantizer.bits))
    remove_identities(frozen)
    return frozen.requires_grad_(False).eval()


def _frozen_weight(layer: nn.Module) -> FrozenWeight:
    codes, scale, _ = layer.integer_weight()
    quantizer = layer.weight_quantizer
    # Not integer_weight's own zero point: as int32 that of a very narrow channel would overflow.
    zero_point = quantizer.qparams(layer.weight)[1]
    return FrozenWeight(codes, scale.detach().clone(), zero_point.detach().clone(), quantizer.bits)


def remove_identities(graph: fx.GraphModule) -> None:
    """Take nn.Identity, which taps are, out of the graph."""
    for node in find_nodes(graph, lambda n, m: type(m) in (nn.Identity, TokenTap)):
        node.replace_all_uses_with(node.args[0])
        graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()


def frozen_layers(model: nn.Module) -> dict[str, FrozenWeight]:
    """Weights of a frozen model by the name of their layer, in module order."""
    return {
        name.removesuffix(".frozen_weight"): module
        for name, module in model.named_modules()
        if isinstance(module, FrozenWeight)
    }


def frozen_activations(model: nn.Module) -> dict[str, FrozenActivation]:
    """Activation grids of a frozen model by name, in module order."""
    return {n: m for n, m in model.named_modules() if isinstance(m, FrozenActivation)}


@torch.no_grad()
def activation_codes(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Codes (uint8, counted from 0) of every activation of a frozen model on a batch."""
    codes: dict[str, Tensor] = {}
    with contextlib.ExitStack() as stack:
        for name, grid in frozen_activations(model).items():

            def keep(module: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                codes[name] = module.codes(inputs[0]).cpu()

            stack.callback(grid.register_forward_pre_hook(keep).remove)
        model(images)
    return codes


class StandaloneModel(nn.Module):
    """What a model file computes: RGB (or grey) in [0, 1], (N, C, H, W) float32 → logits (N, K)."""

    def __init__(self, frozen: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.frozen = frozen
        self.preprocessing = preprocessing
        device = next((b.device for b in frozen.buffers()), torch.device("cpu"))
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocessing, name), dtype=torch.float32, device=device)
            self.register_buffer(name, values.view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        # The same operations as Preprocessing.normalize, so that both give the same bits.
        return self.frozen((images - self.mean) / self.std)
