"""Modules that a network calls though they are none of its submodules.

`nn.Module` sees only what is assigned to it directly. Layers in a plain list, a dict, a closure or
a `functools.partial` have no name, follow neither `eval()` nor `float()`, and tracing cannot call
them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from types import FunctionType, MethodType
from typing import Any

from torch import nn

_INTERNAL = set(vars(nn.Module()))
_LIBRARIES = ("torch.", "torchvision.", "timm.")
_DEPTH = 4
"""Of containers in containers."""


def open_hidden(root: nn.Module) -> list[str]:
    """Make modules in containers submodules, in place and in evaluation mode.

    Returns:
        Their new paths, such as `body.layers_0` for `body.layers[0]`.
    """
    known = {id(module) for module in root.modules()}
    opened, pending = [], list(root.named_modules())
    for path, owner in pending:
        for name, module in _held(owner):
            within = {id(m) for m in module.modules()}
            # An owner in its own child would make every walk over the network endless.
            if id(module) in known or within & {id(root), id(owner)}:
                continue
            name = install(owner, name, module.eval())
            known |= within
            pending += module.named_modules(prefix=f"{path}.{name}" if path else name)
            opened.append(f"{path}.{name}" if path else name)
    return opened


def install(owner: nn.Module, name: str, module: nn.Module) -> str:
    """Add a submodule under that name, or under the next one that is free; returns it."""
    names = (name, *(f"{name}_{n}" for n in range(len(owner._modules) + 2)))
    free = next(n for n in names if not hasattr(owner, n))
    owner.add_module(free, module)
    return free


def _held(owner: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(name, module) of what the owner's attributes and its forward hold beside submodules."""
    for name, value in list(vars(owner).items()):
        if name not in _INTERNAL:
            yield from _modules_in(name, value, _DEPTH)
    forward = getattr(type(owner), "forward", None)
    if isinstance(forward, FunctionType) and not forward.__module__.startswith(_LIBRARIES):
        yield from _modules_in("forward", forward, _DEPTH)


def _modules_in(name: str, value: Any, depth: int) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(value, nn.Module):
        yield re.sub(r"\W", "_", name), value
    elif depth:
        for key, inner in _parts(value):
            yield from _modules_in(f"{name}_{key}", inner, depth - 1)


def _parts(value: Any) -> Iterator[tuple[object, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, (list, tuple)):
        yield from enumerate(value)
    elif isinstance(value, functools.partial):
        yield from enumerate((value.func, *value.args, *value.keywords.values()))
    elif isinstance(value, MethodType):
        yield "self", value.__self__
    elif isinstance(value, FunctionType):
        yield from _reached(value)
    elif isinstance(getattr(value, "transforms", None), (list, tuple)):  # torchvision's Compose
        yield from enumerate(value.transforms)


def _reached(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function's text reaches: its closure, its defaults, globals that are modules."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not filled yet
            continue
    yield from ((str(n), v) for n, v in enumerate(function.__defaults__ or ()))
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        if isinstance(value, (nn.Module, list, tuple, dict)):
            yield name, value
