"""The network's own forward, from images to logits, where PyTorch's tracer would see another
one."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping
from functools import partial, reduce
from typing import Any

from torch import Tensor, nn

from synq_tune.graph.hooks import around, call_hooked, drop_hooks, has_hooks

Path = tuple[tuple[Callable[[Any, Any], Any], Any], ...]
"""Steps from an output to a tensor in it: item or attribute, and its name."""


def find_logits(output: Any) -> Path | None:
    """The way to the `logits` of an output, or to its first tensor; None where it holds none."""
    if isinstance(output, Tensor):
        return ()
    for step in sorted(_steps(output), key=lambda step: step[1] != "logits"):
        rest = find_logits(step[0](output, step[1]))
        if rest is not None:
            return (step, *rest)
    return None


def _steps(output: Any) -> list[tuple[Callable[[Any, Any], Any], Any]]:
    if isinstance(output, Mapping):
        return [(operator.getitem, key) for key in output]
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return [(getattr, name) for name in output._fields]
    if isinstance(output, (tuple, list)):
        return [(operator.getitem, i) for i in range(len(output))]
    if dataclasses.is_dataclass(output):
        return [(getattr, field.name) for field in dataclasses.fields(output)]
    return [(getattr, "logits")] if hasattr(output, "logits") else []


def read(output: Any, path: Path) -> Any:
    """Follow a path."""
    return reduce(lambda value, step: step[0](value, step[1]), path, output)


def described(output: Any, path: Path) -> str:
    """One line on which part of an output is taken."""
    shown = "".join(f".{name}" if step is getattr else f"[{name!r}]" for step, name in path)
    return f"the network returns {type(output).__name__}; its {shown} is taken as the logits"


def fix_forward(model: nn.Module, path: Path, writes_images: bool = False) -> bool:
    """Make the class's forward, which the tracer follows, the whole of what a call does.

    A forward assigned to the instance, hooks on the network itself and the way to the logits go in;
    a network that writes into its images gets a copy.

    Returns:
        Whether the tracer would have followed something else than a call runs.
    """
    own = vars(model).pop("forward", None)
    is_more = own is not None or has_hooks(model)
    if not (is_more or path or writes_images):
        return False
    inner = own or partial(type(model).forward, model)
    hooks = around(model)
    drop_hooks([model])

    def forward(self: nn.Module, images: Tensor) -> Tensor:
        given = images.clone() if writes_images else images
        return read(call_hooked(hooks, self, inner, (given,), {}), path)

    kind = type(model)
    members = {"forward": forward, "__module__": kind.__module__, "__qualname__": kind.__qualname__}
    model.__class__ = type(kind.__name__, (kind,), members)
    return is_more
