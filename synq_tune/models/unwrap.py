"""Take a network out of what training and deployment wrapped it in, and give it float32 tensors."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.ao.quantization import QuantWrapper
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

_WRAPPERS = (nn.DataParallel, DistributedDataParallel, AveragedModel, QuantWrapper)
_COMPILED = "_orig_mod"


def unwrap(model: nn.Module) -> tuple[nn.Module, list[str]]:
    """The network without wrappers, around it or around its parts, and what was taken off.

    Parts change in place. Wrappers are DataParallel, DistributedDataParallel, torch.compile,
    averages of weights (`torch.optim.swa_utils`) and `QuantWrapper`.
    """
    kinds: dict[str, None] = {}
    while (inner := _inner(model)) is not None:
        kinds[_name(model)] = None
        model = inner
    for module in list(model.modules()):
        module._compiled_call_impl = None  # what nn.Module.compile() leaves behind
        for name, child in list(module.named_children()):
            while (inner := _inner(child)) is not None:
                kinds[_name(child)] = None
                module._modules[name] = child = inner
    return model, [f"taken out of {', '.join(kinds)}"] if kinds else []


def _inner(module: nn.Module) -> nn.Module | None:
    if isinstance(module, _WRAPPERS):
        return module.module
    return module._modules.get(_COMPILED)


def _name(module: nn.Module) -> str:
    return "torch.compile" if _COMPILED in module._modules else type(module).__name__


def to_float32(model: nn.Module) -> list[str]:
    """Cast every floating tensor of the network in place; says from what."""
    found = {t.dtype for m in model.modules() for t in _own_tensors(m) if _is_foreign(t)}
    if not found:
        return []
    model.float()
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor) and _is_foreign(value):
                setattr(module, name, value.detach().float())
    names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in found))
    return [f"cast from {names} to float32"]


def _own_tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)
    yield from (value for value in vars(module).values() if isinstance(value, Tensor))


def _is_foreign(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype != torch.float32


@contextlib.contextmanager
def eagerly() -> Iterator[None]:
    """Inside, functions that `torch.compile` made run as they were written, also while traced."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is None:  # nothing can be compiled; importing it takes a second
        yield
        return
    with (
        dynamo.config.patch(error_on_nested_fx_trace=False),
        torch.compiler.set_stance("force_eager"),
    ):
        yield
