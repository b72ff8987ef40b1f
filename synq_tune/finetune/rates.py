"""How far an update moves each parameter, told apart by who owns it and never by its name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from synq_tune.config import FineTune
from synq_tune.graph.operations import only_user
from synq_tune.quantization.learned_scale import LearnedScale, learned_scales
from synq_tune.quantization.student import weight_layers

_SMALLEST_SIZE = 1e-3


@dataclass(frozen=True)
class Rate:
    """What the optimizer does to one parameter."""

    factor: float
    """Over the rate that the schedule sets."""
    is_decayed: bool = True
    sizes: Tensor | None = None
    """(O, 1, …), positive: the optimizer works on the parameter over this; None = on the
    parameter."""


def rates(student: nn.Module, config: FineTune) -> Iterator[tuple[nn.Parameter, Rate]]:
    """Each parameter of a student with its rate.

    With `lr_relative` a quantized layer's weights move by a share of their own output channel's
    size. A BatchNorm behind the layer undoes any factor of a channel, so that factor must not
    change the training: gradients are measured in the same sizes before they are clipped. Other
    tensors move by a share of their root mean square, at least 1e-3, so that zeros can move.
    """
    scales = learned_scales(student)
    sizes = channel_sizes(student) if config.lr_relative else {}
    for parameter in student.parameters():
        if parameter in scales:
            yield parameter, _of_scale(scales[parameter], config)
        elif parameter in sizes:
            size = sizes[parameter]
            factor = _kind(parameter, config) / _typical(size) ** _absolute_gradients(config)
            yield parameter, Rate(factor, sizes=size)
        else:
            size = _root_mean_square(parameter) if config.lr_relative else 1.0
            yield parameter, Rate(_kind(parameter, config) * size)


def _of_scale(quantizer: LearnedScale, config: FineTune) -> Rate:
    """The rate of a `log_ratio`, which is relative already; decaying it would pull to the start.

    An absolute rate becomes relative to the tensor's middle scale: with scales that are all alike a
    scale moves by `lr` · `step_lr_factor` (Adam), or that times its own gradient (SGD).
    """
    power = (not config.lr_relative) + _absolute_gradients(config)
    return Rate(config.step_lr_factor / _typical(quantizer.scale) ** power, is_decayed=False)


def _absolute_gradients(config: FineTune) -> bool:
    """Whether a gradient measured in sizes makes an update smaller by a size: Adam divides by
    it."""
    return config.optimizer == "sgd"


def _kind(parameter: Tensor, config: FineTune) -> float:
    return config.norm_lr_factor if parameter.dim() == 1 else 1.0


def _typical(sizes: Tensor) -> float:
    # The middle one: it stays where a few channels are far larger or smaller.
    return float(sizes.detach().median())


def _root_mean_square(tensor: Tensor) -> float:
    return max(float(tensor.detach().square().mean().sqrt()), _SMALLEST_SIZE)


@torch.no_grad()
def channel_sizes(student: nn.Module) -> dict[nn.Parameter, Tensor]:
    """Root mean square of each output channel of the quantized layers' weights, (O, 1, …).

    A bias in front of a BatchNorm is scaled with its channel: its sizes (O,) are the channels',
    times the middle of bias over size, at least 1e-3.
    """
    sizes = {}
    biases = _normalised_biases(student)
    for layer in weight_layers(student).values():
        size = _channel_size(layer.weight.flatten(1))
        sizes[layer.weight] = size.view(-1, *[1] * (layer.weight.dim() - 1))
        if layer.bias is not None and layer.bias in biases:
            share = float((layer.bias.abs() / size).median())
            sizes[layer.bias] = size * max(share, _SMALLEST_SIZE)
    return sizes


def _channel_size(rows: Tensor) -> Tensor:
    """Root mean square of each row (O, n); rows of zeros get a thousandth of the middle one.

    They can then move, though little: a BatchNorm enlarges a channel without values up to 300
    times.
    """
    largest = rows.abs().amax(1)
    # Squares of the smallest floats would be 0.
    size = largest * (rows / largest[:, None]).square().mean(1).sqrt()
    is_alive = largest > 0
    middle = float(size[is_alive].median()) if is_alive.any() else 1.0
    return torch.where(is_alive, size, _SMALLEST_SIZE * middle)


def _normalised_biases(student: nn.Module) -> set[nn.Parameter]:
    """Biases of the layers whose values only a BatchNorm reads."""
    if not isinstance(student, fx.GraphModule):
        return set()
    modules = dict(student.named_modules())
    found = set()
    for node in student.graph.nodes:
        layer, user = modules.get(str(node.target)), only_user(student, node)
        norm = modules.get(str(user.target)) if user is not None else None
        if node.op == "call_module" and isinstance(norm, nn.modules.batchnorm._BatchNorm):
            found.add(getattr(layer, "bias", None))
    return found - {None}
