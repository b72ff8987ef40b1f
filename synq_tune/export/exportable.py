"""Whether ONNX has a form of every operation, asked before hours of work instead of at their end."""

from __future__ import annotations

import operator
import re

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.onnx.errors import OnnxExporterError

from synq_tune.errors import InputError, stage
from synq_tune.export.divided_pool import spell_out_divisors
from synq_tune.export.onnx_translate import to_onnx
from synq_tune.graph.nodes import module_of
from synq_tune.graph.taps import TokenTap
from synq_tune.models.teacher import LoadedTeacher

_SURE_MODULES = (
    nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.Identity, nn.Flatten,
    nn.Dropout, nn.MaxPool2d, nn.AvgPool2d, nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Hardswish, nn.SiLU,
    nn.GELU, nn.Sigmoid, nn.Hardsigmoid, nn.LeakyReLU, TokenTap,
)  # fmt: skip
"""ONNX has a form of each, whatever its arguments: `tests/export/test_exportable.py` tries them.

A network of nothing else need not be translated to know, which takes seconds."""

_SURE_TARGETS = (
    operator.add, operator.iadd, torch.add, operator.mul, operator.imul, torch.mul, torch.cat,
    torch.flatten, torch.roll, F.relu, F.relu6, F.avg_pool2d, F.max_pool2d, F.pad,
    F.scaled_dot_product_attention, operator.getitem, getattr, "add", "add_", "mul", "mul_",
    "flatten", "view", "reshape", "size", "mean", "expand", "permute", "transpose", "unbind",
)  # fmt: skip

_ONE = (1, (1, 1), [1, 1])
"""Global pooling; other sizes may not divide the map's, which ONNX has no form for."""


def check_exportable(teacher: LoadedTeacher) -> None:
    """Translate the network, unless its operations are all known to have a form in ONNX.

    Raises:
        InputError: an operation has none. The message names it, and what may have called it.
    """
    unsure = unsure_nodes(teacher.graph)
    if not unsure:
        return
    network = fx.GraphModule(teacher.graph, teacher.graph.graph)
    spell_out_divisors(network)
    with stage("exporting", f"teacher.model={teacher.config.model}"):
        try:
            to_onnx(network.cpu(), teacher.preprocessing.shape)
        except OnnxExporterError as error:
            raise InputError(_text(teacher.graph, unsure, error)) from error


def unsure_nodes(graph: fx.GraphModule) -> list[fx.Node]:
    """Nodes that call something which is not surely in ONNX."""
    return [node for node in graph.graph.nodes if not _is_sure(graph, node)]


def _is_sure(graph: fx.GraphModule, node: fx.Node) -> bool:
    if node.op in ("placeholder", "output", "get_attr"):
        return True
    module = module_of(graph, node)
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return module.output_size in _ONE
    if module is not None:
        return type(module) in _SURE_MODULES
    if node.target is F.adaptive_avg_pool2d:
        return node.args[1:] in [(size,) for size in _ONE] or node.kwargs.get("output_size") in _ONE
    return node.target in _SURE_TARGETS


def _text(graph: fx.GraphModule, unsure: list[fx.Node], error: BaseException) -> str:
    reasons = []
    cause: BaseException | None = error
    while cause is not None:
        reasons.append(str(cause).splitlines()[0])
        cause = cause.__cause__
    operation = re.search(r"aten[.:]+(\w+)", " ".join(reasons))
    name = operation.group(1) if operation else reasons[-1]
    callers = [str(node.target if node.op == "call_module" else node.name) for node in unsure]
    shown = ", ".join(callers[:5]) + (" …" if len(callers) > 5 else "")
    return (
        f"`every operation has a form in ONNX` must hold, but got {name} (called by one of: {shown}). "
        "Replace it by operations that ONNX has: without them no best model can be exported."
    )
