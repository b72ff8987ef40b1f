"""The module of a network at which two of its runs, or a run and its trace, part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from synq_tune.graph.tracer import ShapeTracer

Calls = list[tuple[str, str, Tensor]]
"""(path, kind, output) of each module call that gave a tensor, in the order in which they ended."""

TOLERANCE = 1e-5
"""Largest difference that counts as rounding, over the largest value, where the same is computed in
the same order: 100 networks of timm and torchvision and their traces differ by nothing at all."""
BATCH_TOLERANCE = 1e-3
"""The same for another number of images, where libraries choose other sums."""


def distance(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest logit; infinite where the shapes differ."""
    if found.shape != expected.shape:
        return float("inf")
    scale = expected.abs().max().clamp(min=torch.finfo(expected.dtype).tiny)
    value = float((found - expected).abs().max() / scale)
    return float("inf") if value != value else value


@contextmanager
def recorded(model: nn.Module) -> Iterator[Calls]:
    """Collect the outputs of all module calls inside the block."""
    calls: Calls = []

    def keep(path: str, module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            calls.append((path, type(module).__name__, output.detach().clone()))

    handles = [
        module.register_forward_hook(partial(keep, path)) for path, module in model.named_modules()
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def first_difference(
    model: nn.Module, one: Tensor, other: Tensor, tolerance: float = TOLERANCE
) -> str:
    """Where two runs part, as ` at PATH (KIND)`; empty where no module tells."""
    runs = []
    for images in (one, other):
        with recorded(model) as calls:
            model(images.clone())
        runs.append(calls)
    for (path, kind, first), (_, _, second) in zip(*runs, strict=False):
        if distance(second[: len(first)], first[: len(second)]) > tolerance:
            return _at(path, kind)
    return ""


def first_non_finite(model: nn.Module, images: Tensor) -> str:
    """The first module that gives NaN or infinity."""
    with recorded(model) as calls:
        model(images.clone())
    for path, kind, value in calls:
        if not value.isfinite().all():
            return f", first{_at(path, kind)}"
    return ""


def first_missed(model: nn.Module, images: Tensor) -> str:
    """The first module whose trace computes something else than the module."""
    with recorded(model) as calls:
        model(images.clone())
    try:
        traced = _traced_calls(model, images)
    except Exception:  # a reason to refuse is known already; this one only tells where
        return ""
    for path, kind, value in calls:
        found = traced.get(path, []).pop(0) if traced.get(path) else None
        is_root = not path
        if found is None and not is_root:
            if _is_within_leaf(path, traced):
                continue
            return f"{_at(path, kind)}, which is passed over"
        if found is not None and distance(found, value) > TOLERANCE:
            return _at(path, kind)
    return f" in the forward of {type(model).__name__} itself"


def _is_within_leaf(path: str, traced: dict[str, list[Tensor]]) -> bool:
    parts = path.split(".")
    return any(".".join(parts[:n]) in traced for n in range(1, len(parts)))


def _traced_calls(model: nn.Module, images: Tensor) -> dict[str, list[Tensor]]:
    """What the graph computes for each module call; values met while tracing may be others."""
    tracer = _Recorder(images.clone())
    keeper = _Keeper(fx.GraphModule(model, tracer.trace(model)))
    keeper.run(images.clone())
    return {
        path: [keeper.values[node] for node in nodes if node in keeper.values]
        for path, nodes in tracer.outputs.items()
    }


class _Keeper(fx.Interpreter):
    """Keeps every tensor as it is computed, before an operation in place changes it."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.values: dict[str, Tensor] = {}

    def run_node(self, node: fx.Node) -> Any:
        value = super().run_node(node)
        if isinstance(value, Tensor):
            self.values[node.name] = value.detach().clone()
        return value


class _Recorder(ShapeTracer):
    """Keeps the names of the nodes that modules give."""

    def __init__(self, example: Tensor) -> None:
        super().__init__(example)
        self.outputs: dict[str, list[str]] = {}

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        output = super().call_module(m, forward, args, kwargs)
        if not self._is_evaluating and isinstance(output, fx.Proxy):
            self.outputs.setdefault(self.submodule_paths[m], []).append(output.node.name)
        return output


def _at(path: str, kind: str) -> str:
    return f" at {path} ({kind})" if path else f" in the forward of {kind} itself"
