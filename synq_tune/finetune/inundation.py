"""Gradient inundation (AIT, Choi et al., CVPR 2022): updates that are large enough to change codes.

At low rates most weights stay within their grid's step for good. Each quantized weight is moved
along its update, farther if need be, until a share of its integer codes has changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

_BISECTIONS = 5
_CLOSE_ENOUGH = 0.01


@contextlib.contextmanager
def inundated(layers: Sequence[nn.Module], share: float, cap: float) -> Iterator[None]:
    """A block in which an optimizer takes its step; behind it quantized weights have moved farther.

    The optimizer's own state, such as its momentum, stays that of the plain step.

    Args:
        layers: of `weight_layers`; none: nothing is done. Their weights do not decay.
        share: of a weight's codes that change at least, in [0, 1].
        cap: the most that an update is multiplied by: one without a gradient changes no code.
    """
    before = [layer.weight.detach().clone() for layer in layers]
    for layer in layers:
        # From zero, so that the update keeps its digits: at low rates a weight has none left.
        layer.weight.data.zero_()
    yield
    with torch.no_grad():
        for layer, weight in zip(layers, before, strict=True):
            move = layer.weight.detach().clone()
            factor = stretch(layer.weight_quantizer, weight, move, share, cap)
            layer.weight.copy_(weight + factor * move)


def stretch(quantizer: nn.Module, weight: Tensor, move: Tensor, share: float, cap: float) -> float:
    """The factor in [1, cap] of `move` with which about `share` of the codes change.

    1 where as many change already; else doubled until enough do, then halved in between, five
    times at most. Reads the codes on the host, about log2(factor) + 5 times.

    Args:
        quantizer: of the weight.
        weight: (O, …), before the update.
        move: the update, same shape.
        share: in [0, 1].
        cap: ≥ 1.
    """
    codes = quantizer.codes(weight)

    def changed(factor: float) -> float:
        return float((quantizer.codes(weight + factor * move) != codes).double().mean())

    factor = 1.0
    while changed(factor) < share:
        if factor >= cap:
            return cap
        factor = min(2 * factor, cap)
    return factor if factor == 1.0 else _between(changed, factor / 2, factor, share)


def _between(changed: Callable[[float], float], low: float, high: float, share: float) -> float:
    """A factor in (low, high] at which enough codes change, near the least."""
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        found = changed(middle)
        if found >= share:
            high = middle
        else:
            low = middle
        if 0 <= found - share <= _CLOSE_ENOUGH * share:
            break
    return high
