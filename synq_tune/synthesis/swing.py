"""Swing convolution (GENIE, Jeon et al., CVPR 2023, section 3.2): strides that start elsewhere.

A strided convolution reads some pixels more often than others, and their gradients draw a
checkerboard into images. Shifted anew in each forward, no pixel is special.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.autograd.function import once_differentiable

Padding = tuple[int, int, int, int]
"""Zeros on the left, on the right, above and below."""
_NONE = (0, 0, 0, 0)


@contextlib.contextmanager
def swinging(graph: fx.GraphModule, generator: torch.Generator) -> Iterator[None]:
    """A block in which every convolution with a stride reads its input shifted by up to a pixel.

    In each forward every such convolution draws offsets of its own, -1, 0 or 1 for rows and for
    columns, the same for the whole batch; what comes in at an edge is reflected. Weights, strides
    and paddings stay, and pooling does.

    Args:
        graph: the traced network.
        generator: on the CPU.
    """
    with contextlib.ExitStack() as stack:
        for layer, padding in strided_convolutions(graph).items():
            layer.forward = partial(_swing, layer, padding, generator)
            stack.callback(delattr, layer, "forward")
        yield


def strided_convolutions(graph: fx.GraphModule) -> dict[nn.Conv2d, Padding]:
    """The convolutions with a stride, in the order of their calls → zeros put around their input.

    A padding that differs from side to side, such as TensorFlow's, is a call in front of the layer.
    """
    found: dict[nn.Conv2d, Padding] = {}
    for node in graph.graph.nodes:
        layer = graph.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(layer, nn.Conv2d) and layer.stride != (1, 1):
            padding = _zeros_around(graph, node.args[0] if node.args else node.kwargs["input"])
            # Called at several places with several paddings: it shifts all that it reads.
            found[layer] = padding if found.get(layer, padding) == padding else _NONE
    return found


def _zeros_around(graph: fx.GraphModule, node: fx.Node) -> Padding:
    """Zeros that this node puts around maps; (0, 0, 0, 0) where it does something else."""
    if node.op == "call_module":
        module = graph.get_submodule(node.target)
        return tuple(module.padding) if isinstance(module, nn.ZeroPad2d) else _NONE
    if node.target is not F.pad:
        return _NONE
    names = ("input", "pad", "mode", "value")
    call = {"mode": "constant", "value": None, **dict(zip(names, node.args, strict=False))}
    call |= node.kwargs
    padding = tuple(call["pad"])
    are_zeros = call["mode"] == "constant" and not call["value"]
    return padding if are_zeros and len(padding) == 4 and min(padding) >= 0 else _NONE


def _swing(layer: nn.Conv2d, padding: Padding, generator: torch.Generator, x: Tensor) -> Tensor:
    down, right = torch.randint(-1, 2, (2,), generator=generator).tolist()
    return type(layer).forward(layer, shifted(x, down, right, padding))


def shifted(x: Tensor, down: int, right: int, padding: Padding = _NONE) -> Tensor:
    """Maps whose pixel (i, j) is that of (i + down, j + right) before, reflected at the edges.

    Args:
        x: (N, C, H, W).
        down: -1, 0 or 1; a map of one row is not shifted.
        right: -1, 0 or 1; a map of one column is not shifted.
        padding: zeros around the maps, which stay where they are.
    """
    height, width = _maps(x, padding).shape[2:]
    down, right = down * (height > 1), right * (width > 1)
    return _Shift.apply(x, down, right, padding) if down or right else x


class _Shift(torch.autograd.Function):
    """One copy forward and one backward: by padding and cropping a network with large maps pays a
    third of its time."""

    @staticmethod
    def forward(ctx: object, x: Tensor, down: int, right: int, padding: Padding) -> Tensor:
        ctx.how = down, right, padding
        y = _framed_like(x, padding)
        _move(_maps(x, padding), _maps(y, padding), down, right)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: object, grad_y: Tensor) -> tuple[Tensor, None, None, None]:
        down, right, padding = ctx.how
        grad_x = _framed_like(grad_y, padding)
        _give_back(_maps(grad_y, padding), _maps(grad_x, padding), down, right)
        return grad_x, None, None, None


def _framed_like(x: Tensor, padding: Padding) -> Tensor:
    """Zeros around maps that are still to be written."""
    left, right, above, below = padding
    y = torch.empty_like(x)
    y[:, :, :above], y[:, :, x.shape[2] - below :] = 0, 0
    y[..., :left], y[..., x.shape[3] - right :] = 0, 0
    return y


def _maps(x: Tensor, padding: Padding) -> Tensor:
    """The maps within the zeros, a view."""
    left, right, above, below = padding
    return x[:, :, above : x.shape[2] - below, left : x.shape[3] - right]


def _parts(length: int, by: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """(to, from) of what moves along an axis, and of the one row or column that is reflected."""
    if by == 0:
        return (slice(length), slice(length)), (slice(0), slice(0))
    if by > 0:
        inside = slice(length - 1), slice(1, length)
        return inside, (slice(length - 1, length), slice(length - 2, length - 1))
    return (slice(1, length), slice(length - 1)), (slice(1), slice(1, 2))


def _pieces(maps: Tensor, down: int, right: int) -> Iterator[tuple[slice, slice, slice, slice]]:
    """Rows to and from, columns to and from: the inside, an edge, another edge and a corner."""
    for rows in _parts(maps.shape[2], down):
        for columns in _parts(maps.shape[3], right):
            yield *rows, *columns


def _move(x: Tensor, y: Tensor, down: int, right: int) -> None:
    for to_row, row, to_column, column in _pieces(x, down, right):
        y[:, :, to_row, to_column] = x[:, :, row, column]


def _give_back(grad_y: Tensor, grad_x: Tensor, down: int, right: int) -> None:
    first, *edges = _pieces(grad_y, down, right)
    to_row, row, to_column, column = first
    grad_x[:, :, row, column] = grad_y[:, :, to_row, to_column]
    if down:  # the row, and the column, that left the maps
        grad_x[:, :, 0 if down > 0 else -1] = 0
    if right:
        grad_x[..., 0 if right > 0 else -1] = 0
    for to_row, row, to_column, column in edges:
        grad_x[:, :, row, column] += grad_y[:, :, to_row, to_column]
