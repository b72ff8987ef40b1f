"""Forward hooks that the user registered: those that change values become part of the network.

Tracing calls layers as they are and would leave such hooks on them, where a quantized layer that
takes their place has none. Hooks that only look on are dropped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any, NamedTuple

from torch import nn

Hooks = dict[int, Callable[..., Any]]


def hooked(model: nn.Module) -> dict[str, nn.Module]:
    """Path → module of all that have forward hooks or forward pre-hooks."""
    return {path: module for path, module in model.named_modules() if has_hooks(module)}


def has_hooks(module: nn.Module) -> bool:
    """Whether calling the module is more than calling its forward."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


@contextlib.contextmanager
def watched(model: nn.Module) -> Iterator[set[int]]:
    """Collect the ids of the hooks that return a value during calls inside the block."""
    speaking: set[int] = set()
    tables = [table for module in hooked(model).values() for table in _tables(module)]
    originals = [dict(table) for table in tables]
    for table in tables:
        for key, hook in table.items():
            table[key] = _watched(hook, speaking)
    try:
        yield speaking
    finally:
        for table, original in zip(tables, originals, strict=True):
            table.update(original)


def _watched(hook: Callable[..., Any], speaking: set[int]) -> Callable[..., Any]:
    @wraps(hook, updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        result = hook(*args, **kwargs)
        if result is not None:
            speaking.add(id(hook))
        return result

    return call


def _tables(module: nn.Module) -> tuple[Hooks, Hooks]:
    return module._forward_pre_hooks, module._forward_hooks


def drop_silent(model: nn.Module, speaking: set[int]) -> list[str]:
    """Drop the hooks that returned nothing; returns the paths of modules whose hooks stay."""
    for module in hooked(model).values():
        for table in _tables(module):
            for key in [key for key, hook in table.items() if id(hook) not in speaking]:
                del table[key]
    return list(hooked(model))


def drop_hooks(modules: Iterable[nn.Module]) -> None:
    """Drop the forward hooks of these modules: what they do is in the graph."""
    for module in modules:
        for table in _tables(module):
            table.clear()


class Around(NamedTuple):
    """A module's pre-hooks and hooks, and which of them are given keyword arguments, too."""

    before: Hooks
    before_with_kwargs: frozenset[int]
    behind: Hooks
    behind_with_kwargs: frozenset[int]


def around(module: nn.Module) -> Around:
    """The hooks of a module as they are now."""
    return Around(
        dict(module._forward_pre_hooks),
        frozenset(module._forward_pre_hooks_with_kwargs),
        dict(module._forward_hooks),
        frozenset(module._forward_hooks_with_kwargs),
    )


def call_hooked(
    hooks: Around,
    module: nn.Module,
    forward: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """`forward` between pre-hooks and hooks, as `nn.Module.__call__` runs them."""
    for key, hook in hooks.before.items():
        if key in hooks.before_with_kwargs:
            args, kwargs = hook(module, args, kwargs) or (args, kwargs)
        else:
            result = hook(module, args)
            args = args if result is None else result if isinstance(result, tuple) else (result,)
    output = forward(*args, **kwargs)
    for key, hook in hooks.behind.items():
        more = (kwargs,) if key in hooks.behind_with_kwargs else ()
        result = hook(module, args, *more, output)
        output = output if result is None else result
    return output
