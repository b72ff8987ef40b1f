"""Average pooling with a divisor of its own, in operations that ONNX has.

ONNX's AveragePool has no such argument, and torch 2.15's exporter leaves it out without a word: the
file would divide by the window's size.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.utils import _pair

from synq_tune.graph.nodes import module_of

_ARGUMENTS = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
_DIVISOR = "divisor_override"


class DividedPool(nn.Module):
    """The sum over each window, divided by `divisor`; (N, C, H, W) → (N, C, H', W').

    Equal to `torch.nn.AvgPool2d(…, divisor_override=divisor)`, whose padding counts as zeros and whose
    windows may end behind it with `ceil_mode`.
    """

    def __init__(self, pool: nn.AvgPool2d, divisor: int) -> None:
        super().__init__()
        self.kernel, self.stride = _pair(pool.kernel_size), _pair(pool.stride)
        self.padding, self.ceil_mode = _pair(pool.padding), pool.ceil_mode
        self.factor = self.kernel[0] * self.kernel[1] / divisor

    def forward(self, x: Tensor) -> Tensor:
        (top, bottom), (left, right) = (self._pads(x.shape[axis], axis - 2) for axis in (2, 3))
        padded = F.pad(x, (left, right, top, bottom))
        return F.avg_pool2d(padded, self.kernel, self.stride) * self.factor

    def _pads(self, size: int, axis: int) -> tuple[int, int]:
        """Zeros in front and behind, so that every window lies inside."""
        kernel, stride, padding = self.kernel[axis], self.stride[axis], self.padding[axis]
        room = size + 2 * padding - kernel
        steps = -(-room // stride) if self.ceil_mode else room // stride
        if self.ceil_mode and steps * stride >= size + padding:
            steps -= 1  # torch leaves out a window that would start behind the image
        return padding, steps * stride + kernel - size - padding


def spell_out_divisors(network: fx.GraphModule) -> None:
    """Put a DividedPool, in place, wherever the network pools with a divisor of its own."""
    for node in list(network.graph.nodes):
        pool, divisor = _pool_of(network, node)
        if divisor is None:
            continue
        name = f"{node.name}_divided"
        network.add_submodule(name, DividedPool(pool, divisor))
        with network.graph.inserting_after(node):
            new = network.graph.call_module(name, (node.args[0],))
        new.meta = dict(node.meta)
        node.replace_all_uses_with(new)
        network.graph.erase_node(node)
    network.recompile()


def _pool_of(network: fx.GraphModule, node: fx.Node) -> tuple[Any, int | None]:
    module = module_of(network, node)
    if isinstance(module, nn.AvgPool2d):
        return module, module.divisor_override
    if node.target is not F.avg_pool2d:
        return None, None
    given = {**dict(zip((*_ARGUMENTS, _DIVISOR), node.args[1:], strict=False)), **node.kwargs}
    divisor = given.pop(_DIVISOR, None)
    return nn.AvgPool2d(**given), divisor
