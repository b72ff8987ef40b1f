"""Turn a teacher into a student: quantize, then calibrate."""

from __future__ import annotations

import contextlib
import copy
import fnmatch
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, fx, nn

from synq_tune.config import Bits
from synq_tune.errors import InputError
from synq_tune.graph.activations import KNOWN_NAMES, unknown_activation
from synq_tune.graph.branches import readers_of
from synq_tune.graph.nodes import find_nodes, insert_after, is_float
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.quantization.base import ActivationQuantizer, Quantizer, quantizer_family
from synq_tune.quantization.layers import QUANTIZED_LAYERS, computed_weight, quantized_layer
from synq_tune.quantization.residual_bits import split_residuals
from synq_tune.quantization.unplaced import unplaced_functions

ACTIVATION_PREFIX = "quantize_"


def quantize_student(teacher: LoadedTeacher, bits: Bits, quantizer: str) -> fx.GraphModule:
    """A quantized copy of the teacher, in evaluation mode, its ranges not yet calibrated.

    Every Conv2d and Linear gets a weight grid per output channel. Which tensors get a grid is the
    family's `placement`: the paper's quantizers have one behind every activation function and leave
    the input, sums, pooled features and logits in float; `deploy` leaves only the logits;
    `transformers.py` has the table of the vit ones. Biases stay float.

    Args:
        teacher: stays unchanged.
        bits: widths, with `first`, `last`, `skip` and `overrides`.
        quantizer: name of a family, ours or the user's own (`FILE.py:NAME`).

    Returns:
        Graph with the teacher's parameter names; all parameters require gradients.

    Raises:
        InputError: an activation function is unknown, the family has no grid for a layer, nothing
            has weights or values to quantize, or an override or `skip` matches nothing.
    """
    family = quantizer_family(quantizer)
    student = copy.deepcopy(teacher.graph)
    _refuse_unknown(student)
    family.prepare(student)
    layers = _layer_nodes(student)
    activations = _placement(student, layers, family, quantizer)
    narrow, wide = split_residuals(student, activations) if bits.skip else (activations, [])
    of_layers = _layer_widths(bits, [str(n.target) for n in layers])
    of_values = _value_widths(bits, [n.name for n in narrow], [n.name for n in wide])
    _override(bits, of_layers, of_values)
    for node in layers:
        _replace_layer(student, node, family, of_layers[str(node.target)])
    for node in [n for n in student.graph.nodes if n.name in of_values]:
        module = family.activation(of_values[node.name]).to(_device(student))
        insert_after(student, node, ACTIVATION_PREFIX + node.name, module)
    student.recompile()
    return student.requires_grad_(True).eval()


def _placement(
    graph: fx.GraphModule, layers: list[fx.Node], family: Quantizer, quantizer: str
) -> list[fx.Node]:
    """Where grids of values go: behind float tensors whose values are read, and there is one at
    least."""
    placed = [n for n in family.placement(graph) if is_float(n) and readers_of(graph, n)]
    floating = unplaced_functions(graph, placed)
    if floating:
        raise InputError(
            "`every activation function is known or has a grid` must hold, but got "
            f"{_first_of(floating)[:-1]}, which equals none of torch.nn's. Use one of those, or "
            "quantizer=deploy, which has a grid behind every tensor."
        )
    if not layers:
        raise InputError(
            "`the network has a Conv2d or Linear` must hold, but none is called: there is no weight to "
            "quantize."
        )
    if not placed:
        raise InputError(
            f"`a tensor gets a grid` must hold for quantizer={quantizer}, but the network has no "
            "activation function for one: its values would all stay float. Use quantizer=deploy, which "
            "has a grid behind every tensor."
        )
    return placed


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _refuse_unknown(graph: fx.GraphModule) -> None:
    unknown = [u for n in graph.graph.nodes if (u := unknown_activation(graph, n))]
    if unknown:
        raise InputError(
            f"`activation functions are known ({KNOWN_NAMES})` must hold, but got "
            f"{_first_of(unknown)}"
        )
    computed = [u for n in graph.graph.nodes if (u := computed_weight(graph, n))]
    if computed:
        raise InputError(
            "`weights are parameters of one layer` must hold, but they are computed in "
            f"{_first_of(computed)} Replace such layers by nn.Conv2d or nn.Linear."
        )


def _first_of(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more." if names[1:] else ".")


def _layer_nodes(graph: fx.GraphModule) -> list[fx.Node]:
    """Calls of quantizable layers, one per layer, in call order."""
    nodes = find_nodes(graph, lambda n, m: type(m) in QUANTIZED_LAYERS)
    return list({str(n.target): n for n in reversed(nodes)}.values())[::-1]


def _replace_layer(graph: fx.GraphModule, node: fx.Node, family: Quantizer, bits: int) -> None:
    parent_name, _, name = str(node.target).rpartition(".")
    layer = graph.get_submodule(str(node.target))
    parent = graph.get_submodule(parent_name) if parent_name else graph
    setattr(parent, name, quantized_layer(layer, family.weight(layer.weight, bits)))


def _layer_widths(bits: Bits, layers: list[str]) -> dict[str, int]:
    """Bits of the weights by layer name."""
    widths = {name: bits.weights for name in layers}
    if bits.first is not None:
        widths[layers[0]] = bits.first
    if bits.last is not None:
        widths[layers[-1]] = bits.last
    return widths


def _value_widths(bits: Bits, activations: list[str], skips: list[str]) -> dict[str, int]:
    """Bits of the values by name of the node a grid goes behind, which may be a layer's name
    too."""
    widths = {name: bits.activations for name in activations}
    if bits.first is not None:
        widths.update({name: bits.first for name in activations[:1]})
    if bits.last is not None:
        widths.update({name: bits.last for name in activations[-1:]})
    return widths | {name: bits.skip for name in skips}


def _override(bits: Bits, layers: dict[str, int], values: dict[str, int]) -> None:
    """Give what `bits.overrides` matches its width, in place."""
    for pattern, given in bits.overrides.items():
        each = given if isinstance(given, dict) else {"weights": given, "activations": given}
        of_kind = {"weights": layers, "activations": values}
        matched = {kind: fnmatch.filter(of_kind[kind], pattern) for kind in each}
        if not any(matched.values()):
            raise InputError(
                f"bits.overrides: `a pattern matches a layer or an activation` must hold, but got "
                f"{pattern!r}. Layers: {', '.join(list(layers)[:3])}, …; "
                f"activations: {', '.join(list(values)[:3])}, …"
            )
        for kind, names in matched.items():
            of_kind[kind].update(dict.fromkeys(names, each[kind]))


def weight_layers(student: nn.Module) -> dict[str, nn.Module]:
    """Quantized layers by name, in module order."""
    kinds = tuple(QUANTIZED_LAYERS.values())
    return {name: m for name, m in student.named_modules() if isinstance(m, kinds)}


def activation_quantizers(student: nn.Module) -> dict[str, ActivationQuantizer]:
    """Activation quantizers by name, in call order."""
    return {n: m for n, m in student.named_modules() if isinstance(m, ActivationQuantizer)}


@contextlib.contextmanager
def passing(quantizers: Iterable[nn.Module]) -> Iterator[None]:
    """Inside the block the quantizers give back what they are given."""

    def give_back(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return inputs[0]

    with contextlib.ExitStack() as stack:
        for quantizer in quantizers:
            stack.callback(quantizer.register_forward_hook(give_back).remove)
        yield


def weight_quantizers(student: nn.Module) -> list[nn.Module]:
    """The weights' quantizers, in module order."""
    return [layer.weight_quantizer for layer in weight_layers(student).values()]


@contextlib.contextmanager
def _observing(student: nn.Module) -> Iterator[None]:
    """Inside the block activation quantizers see their inputs; afterwards their grids are fixed."""
    quantizers = list(activation_quantizers(student).values())

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        module.observe(inputs[0])

    with contextlib.ExitStack() as stack:
        for quantizer in quantizers:
            stack.callback(quantizer.register_forward_pre_hook(look).remove)
        # Ranges are those of unquantized activations: the grid is not known yet.
        stack.enter_context(passing(quantizers))
        if any(quantizer.observes_float for quantizer in quantizers):
            stack.enter_context(passing(weight_quantizers(student)))
        yield
    for quantizer in quantizers:
        quantizer.end_calibration()


@torch.no_grad()
def calibrate(student: nn.Module, batches: Iterable[Tensor]) -> None:
    """Observe activation ranges on `batches` of normalised images (N, C, H, W) and fix them.

    Raises:
        ValueError: there is no batch.
    """
    seen = 0
    with _observing(student):
        for images in batches:
            student(images)
            seen += 1
    if seen == 0:
        raise ValueError("`calibration sees at least one batch` must hold, but got batches=0.")
