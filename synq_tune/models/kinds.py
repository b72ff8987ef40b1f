"""What looks like a network but cannot be followed: one line each, with what to give instead."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch.ao.quantization import FakeQuantizeBase, ObserverBase
from torch.nn.parameter import UninitializedTensorMixin

from synq_tune.errors import InputError

_QUANTIZED = (
    "torch.ao.nn.quantized.", "torch.ao.nn.qat.", "torch.ao.nn.intrinsic.quantized.",
    "torch.ao.nn.intrinsic.qat.", "torch.ao.nn.sparse.quantized.",
)  # fmt: skip
_EAGER = "Give the nn.Module that it was made from, with its weights"


def refuse_unfit(model: object, name: str) -> None:
    """Refuse what is no network in float that PyTorch runs eagerly.

    Args:
        model: what a function returned.
        name: what errors call it.

    Raises:
        InputError: it is no module, TorchScript, an exported program, quantized already, or has
            tensors without values; names the place and what to give instead.
    """
    if not isinstance(model, nn.Module):
        hint = f" {_EAGER}." if type(model).__name__ == "ExportedProgram" else ""
        raise InputError(
            f"`{name} returns a torch.nn.Module` must hold, but got {type(model).__name__}.{hint}"
        )
    for path, module in model.named_modules():
        reason = _reason(module)
        if reason:
            raise InputError(f"{name}: {place(path)} {reason}")
    for path, tensor in _tensors(model):
        reason = _tensor_reason(tensor)
        if reason:
            raise InputError(f"{name}: {path} {reason}")


def place(path: str) -> str:
    """How errors call a module: the network itself has no path."""
    return path or "the network"


def _reason(module: nn.Module) -> str | None:
    kind = type(module).__name__
    if isinstance(module, torch.jit.ScriptModule):
        return f"is TorchScript ({kind}), whose layers cannot be replaced. {_EAGER}."
    if isinstance(module, fx.GraphModule) and _is_exported(module):
        return f"is an exported program, whose layers are gone. {_EAGER}."
    if isinstance(module, (ObserverBase, FakeQuantizeBase)) or _is_quantized(module):
        return (
            f"is quantized, or prepared for it ({kind}). Give the network in float, as it was "
            "before."
        )
    return None


def _is_exported(module: fx.GraphModule) -> bool:
    return any(isinstance(node.target, OpOverload) for node in module.graph.nodes)


def _is_quantized(module: nn.Module) -> bool:
    return f"{type(module).__module__}.".startswith(_QUANTIZED)


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _tensor_reason(tensor: Tensor) -> str | None:
    if isinstance(tensor, UninitializedTensorMixin):
        return (
            "has no shape yet (a lazy layer). Run the network once on an image, then load its "
            "weights, or write the layer's sizes down."
        )
    if tensor.is_meta:
        return "has no values (device meta). Load the weights before the network is returned."
    if tensor.is_quantized or type(tensor.detach()) is not Tensor:
        return (
            f"is no plain tensor ({type(tensor.detach()).__name__}, {tensor.dtype}). Give the "
            "network in float, as it was before."
        )
    return None
