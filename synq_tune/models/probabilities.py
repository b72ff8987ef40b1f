"""Logits, or probabilities already: a softmax inside a network flattens every loss of this
method."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from synq_tune.errors import InputError
from synq_tune.graph.nodes import module_of

_TOLERANCE = 1e-4
_SOFTMAX = (nn.Softmax, nn.LogSoftmax, nn.Softmax2d)
_SOFTMAX_CALLS = (
    F.softmax, torch.softmax, F.log_softmax, torch.log_softmax, "softmax", "log_softmax",
)  # fmt: skip
_SIGMOID = (nn.Sigmoid, nn.LogSigmoid, nn.Hardsigmoid)
_SIGMOID_CALLS = (
    F.sigmoid, torch.sigmoid, F.logsigmoid, F.hardsigmoid, torch.special.expit, "sigmoid", "sigmoid_",
)  # fmt: skip
_PASSING = (nn.Identity, nn.Dropout, nn.Flatten, nn.Unflatten)
_PASSING_CALLS = (
    torch.flatten, torch.squeeze, torch.reshape, torch.log, torch.clamp, F.dropout, "flatten",
    "squeeze", "reshape", "view", "contiguous", "float", "log", "clamp", "log_",
)  # fmt: skip


def check_logits(graph: fx.GraphModule, logits: Tensor, name: str) -> None:
    """Refuse outputs that are probabilities, their logarithms, or one sigmoid per class.

    Values decide, for every image; the operation at the end of the graph is named, and needed as
    evidence where the network says the same about every image.

    Args:
        logits: (N, K) of random images.

    Raises:
        InputError: says which layer to leave out.
    """
    kind = _kind(logits)
    if kind is None:
        return
    softmax, sigmoid = (
        _last(graph, *e) for e in ((_SOFTMAX, _SOFTMAX_CALLS), (_SIGMOID, _SIGMOID_CALLS))
    )
    if kind == "sigmoids":
        found = sigmoid
        what = "one sigmoid per class"
    else:
        found = softmax or sigmoid
        what = kind
    if found is None and (kind == "sigmoids" or _is_constant(logits)):
        return
    hint = f"Leave out {found}" if found else "Return what stands in front of the last softmax"
    raise InputError(
        f"`the network gives logits` must hold, but got {what} from {name!r}: the losses take the "
        f"softmax themselves. {hint}."
    )


def _kind(logits: Tensor) -> str | None:
    """What the values look like, if it is no logits."""
    values = logits.double()
    ones = torch.ones(len(values), dtype=values.dtype, device=values.device)
    is_share = bool(((values >= 0) & (values <= 1 + _TOLERANCE)).all())
    if is_share and torch.allclose(values.sum(1), ones, rtol=0, atol=_TOLERANCE):
        return "probabilities (each row sums to 1)"
    if bool((values <= _TOLERANCE).all()) and torch.allclose(
        values.exp().sum(1), ones, rtol=0, atol=_TOLERANCE
    ):
        return "logarithms of probabilities (the exponentials of each row sum to 1)"
    is_log = bool((values <= 0).all())
    return "sigmoids" if is_share or is_log else None


def _is_constant(logits: Tensor) -> bool:
    return bool(torch.allclose(logits, logits[:1].expand_as(logits), rtol=0, atol=_TOLERANCE))


def _last(graph: fx.GraphModule, kinds: tuple[type, ...], calls: tuple[object, ...]) -> str | None:
    """The operation of such a kind at the end of the graph, as errors call it."""
    output = next(node for node in reversed(graph.graph.nodes) if node.op == "output")
    node = output.args[0]
    while isinstance(node, fx.Node):
        module = module_of(graph, node)
        if isinstance(module, kinds):
            return f"{node.target} ({type(module).__name__})"
        if node.op != "call_module" and node.target in calls:
            return f"{node.name} at the end of forward"
        passes = isinstance(module, _PASSING) if module else node.target in _PASSING_CALLS
        node = node.args[0] if passes and node.args else None
    return None
