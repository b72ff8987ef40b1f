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
    maps = F.pad(x, [-count for count in padding]) if any(padding) else x
    height, width = maps.shape[2:]
    down, right = down * (height > 1), right * (width > 1)
    if not (down or right):
        return x
    sides = (right < 0, right > 0, down < 0, down > 0)
    wider = F.pad(maps, [int(side) for side in sides], mode="reflect")
    top, left = int(down > 0), int(right > 0)
    moved = wider[:, :, top : top + height, left : left + width]
    return F.pad(moved, padding) if any(padding) else moved
