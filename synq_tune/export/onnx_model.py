"""Write `model.onnx`: standard operators only, integer weights, activations on 8-bit containers.

torch's exporter translates the network, whatever operations it uses; at weights and activation
grids it sees placeholders, which are replaced here by the nodes ONNX has for them:

    weight       DequantizeLinear(codes, scale, zero point), per output channel
    activation   QuantizeLinear → uint8, Clip to k bits, DequantizeLinear

ONNX has no 3-bit type, and onnxruntime cannot load every graph with 4-bit activations, hence the
containers: INT4 or INT8 for weights, UINT8 for activations.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from synq_tune import __version__
from synq_tune.export.metadata import to_texts
from synq_tune.quantization.frozen import (
    FrozenActivation,
    FrozenWeight,
    StandaloneModel,
    frozen_activations,
    frozen_layers,
    replace_module,
)
from synq_tune.store import write_bytes

OPSET = 21
"""The first with INT4; every runtime that can load it is recent enough for the rest."""
INPUT, OUTPUT = "images", "logits"
CODES = ".codes"
"""Suffix of the initializer with a layer's codes, and of the value with an activation's."""

_DOMAIN = "synq_tune"
_LIMITS = {"INT4": (-8, 7), "INT8": (-128, 127)}
FLOAT_ZERO_POINT = "INT8 with float zero points"
"""Container of a layer with a channel so far from zero that no 8-bit zero point reaches it."""


def write_onnx(model: StandaloneModel, metadata: dict[str, Any], path: Path) -> dict[str, Any]:
    """Write the model as one ONNX file, checked.

    Returns:
        The metadata written: `metadata` with `containers`.
    """
    proto = _translate(model)
    _separate_biases(proto)
    containers = _fill_placeholders(proto, model)
    written = {**metadata, "containers": {"weights": containers, "activations": "UINT8"}}
    _tidy(proto)
    helper.set_model_props(proto, to_texts(written))
    onnx.checker.check_model(proto, full_check=True)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    write_bytes(path, proto.SerializeToString(deterministic=True))
    return written


class _WeightPlaceholder(nn.Module):
    """Stands for a FrozenWeight while torch's exporter runs."""

    def __init__(self, name: str, weight: FrozenWeight) -> None:
        super().__init__()
        self.name, self.shape = name, tuple(weight.codes.shape)

    def forward(self) -> Tensor:
        return _placeholder("Weight", (), self.name, self.shape)


class _ActivationPlaceholder(nn.Module):
    """Stands for a FrozenActivation while torch's exporter runs."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return _placeholder("Activation", (x,), self.name, x.shape)


def _placeholder(kind: str, inputs: tuple[Tensor, ...], name: str, shape: Any) -> Tensor:
    return torch.onnx.ops.symbolic(
        f"{_DOMAIN}::{kind}", inputs, {"layer": name}, dtype=torch.float32, shape=shape, version=1
    )


def _with_placeholders(model: StandaloneModel) -> nn.Module:
    new = copy.deepcopy(model).cpu()
    for name, weight in frozen_layers(new.frozen).items():
        placeholder = _WeightPlaceholder(name, weight)
        replace_module(new.frozen, f"{name}.frozen_weight", placeholder)
    for name in frozen_activations(new.frozen):
        replace_module(new.frozen, name, _ActivationPlaceholder(name))
    return new.eval()


@torch.no_grad()
def _translate(model: StandaloneModel) -> ModelProto:
    example = torch.zeros(2, *model.preprocessing.shape)
    with _silence():
        program = torch.onnx.export(
            _with_placeholders(model), (example,), dynamo=True, opset_version=OPSET,
            input_names=[INPUT], output_names=[OUTPUT], dynamic_shapes=({0: "batch"},),
            verbose=False,
        )  # fmt: skip
    return program.model_proto


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Torch's exporter warns about itself; errors still pass."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


def _fill_placeholders(proto: ModelProto, model: StandaloneModel) -> dict[str, str]:
    """Replace the placeholders by standard nodes; returns the container of each layer."""
    weights, activations = frozen_layers(model.frozen), frozen_activations(model.frozen)
    containers: dict[str, str] = {}
    nodes: list[NodeProto] = []
    for node in proto.graph.node:
        if node.domain != _DOMAIN:
            nodes.append(node)
        elif node.op_type == "Weight":
            name = _attribute(node)
            known = name in containers
            containers[name] = _container(weights[name])
            new, tensors = _weight_nodes(name, weights[name], containers[name], node.output[0])
            nodes += new
            proto.graph.initializer.extend([] if known else tensors)
        else:
            name = _attribute(node)
            new, tensors = _activation_nodes(name, activations[name], node)
            nodes += new
            proto.graph.initializer.extend(tensors)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return {name: containers[name] for name in weights if name in containers}


def _attribute(node: NodeProto) -> str:
    return next(a.s.decode() for a in node.attribute if a.name == "layer")


def _container(weight: FrozenWeight) -> str:
    """The smallest container that holds codes and zero points."""
    zero_point = -weight.zero_point
    for name, (low, high) in _LIMITS.items():
        fits = low <= zero_point.min() and zero_point.max() <= high
        if fits and -(2 ** (weight.bits - 1)) >= low:
            return name
    return FLOAT_ZERO_POINT


def _weight_nodes(
    name: str, weight: FrozenWeight, container: str, output: str
) -> tuple[list[NodeProto], list[TensorProto]]:
    codes = weight.codes.cpu().numpy()
    scale = weight.scale.cpu().numpy()
    if container == FLOAT_ZERO_POINT:
        return _float_zero_point_nodes(name, codes, scale, weight, output)
    inputs = [name + CODES, f"{name}.scale"]
    tensors = [
        _integer_tensor(inputs[0], codes, container),
        numpy_helper.from_array(scale, inputs[1]),
    ]
    # ONNX subtracts its zero point; without one it is 0, which symmetric-only targets require.
    zero_point = (-weight.zero_point).cpu().numpy().astype(np.int8)
    if zero_point.any():
        inputs.append(f"{name}.zero_point")
        tensors.append(_integer_tensor(inputs[2], zero_point, container))
    return [helper.make_node("DequantizeLinear", inputs, [output], name=output, axis=0)], tensors


def _float_zero_point_nodes(
    name: str, codes: np.ndarray, scale: np.ndarray, weight: FrozenWeight, output: str
) -> tuple[list[NodeProto], list[TensorProto]]:
    """(code + zero point) · scale in float arithmetic, the same operations as the student's.

    The codes become floats by a DequantizeLinear of scale 1 and not by a Cast: onnxruntime folds a
    Cast into a float weight, and then rounds that to 8 bits per tensor on its own account.
    """
    shape = (-1, *[1] * (codes.ndim - 1))
    zero_point = weight.zero_point.cpu().numpy()
    tensors = [
        _integer_tensor(name + CODES, codes, "INT8"),
        numpy_helper.from_array(np.array(1.0, np.float32), f"{name}.one"),
        numpy_helper.from_array(zero_point.reshape(shape), f"{name}.zero_point"),
        numpy_helper.from_array(scale.reshape(shape), f"{name}.scale"),
    ]
    real, shifted = f"{output}.real", f"{output}.shifted"
    nodes = [
        helper.make_node("DequantizeLinear", [name + CODES, f"{name}.one"], [real], name=real),
        helper.make_node("Add", [real, f"{name}.zero_point"], [shifted], name=shifted),
        helper.make_node("Mul", [shifted, f"{name}.scale"], [output], name=output),
    ]
    return nodes, tensors


def _activation_nodes(
    name: str, grid: FrozenActivation, placeholder: NodeProto
) -> tuple[list[NodeProto], list[TensorProto]]:
    x, y = placeholder.input[0], placeholder.output[0]
    zero_point = 2 ** (grid.bits - 1) - int(grid.zero_point)
    scale_name, zero_name, largest = f"{name}.scale", f"{name}.zero_point", f"{name}.largest"
    tensors = [
        numpy_helper.from_array(grid.scale.cpu().numpy(), scale_name),
        numpy_helper.from_array(np.array(zero_point, dtype=np.uint8), zero_name),
    ]
    codes = name + CODES
    is_whole = grid.bits == 8
    saturated = codes if is_whole else f"{name}.saturated"
    nodes = [helper.make_node("QuantizeLinear", [x, scale_name, zero_name], [saturated])]
    if not is_whole:
        # QuantizeLinear saturates at 0 … 255 only; without the clip larger codes would pass.
        tensors.append(numpy_helper.from_array(np.array(0, dtype=np.uint8), f"{name}.smallest"))
        tensors.append(numpy_helper.from_array(np.array(2**grid.bits - 1, np.uint8), largest))
        nodes.append(helper.make_node("Clip", [saturated, f"{name}.smallest", largest], [codes]))
    nodes.append(helper.make_node("DequantizeLinear", [codes, scale_name, zero_name], [y]))
    for node in nodes:
        node.name = f"{name}.{node.op_type}"
    return nodes, tensors


def _separate_biases(proto: ModelProto) -> None:
    """Add the biases of quantized layers behind them, in nodes of their own.

    From level BASIC on onnxruntime rounds a float bias between a DequantizeLinear and a
    QuantizeLinear to multiples of input scale × weight scale, which at few bits is coarse enough to
    change classes. It recognises the pattern by the layer's third input.
    """
    weights = {n.output[0] for n in proto.graph.node if n.op_type == "Weight"}
    ranks = {t.name: len(t.dims) for t in proto.graph.initializer}
    nodes: list[NodeProto] = []
    for node in proto.graph.node:
        nodes.append(node)
        is_layer = node.op_type in ("Conv", "Gemm") and node.input[1] in weights
        if is_layer and len(node.input) == 3 and ranks.get(node.input[2]) == 1:
            nodes.append(_separate_bias(proto, node))
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _separate_bias(proto: ModelProto, layer: NodeProto) -> NodeProto:
    bias, output = layer.input.pop(), layer.output[0]
    layer.output[0] = f"{output}.unbiased"
    if layer.op_type == "Conv":
        tensor = next(t for t in proto.graph.initializer if t.name == bias)
        shaped = numpy_helper.from_array(numpy_helper.to_array(tensor).reshape(-1, 1, 1))
        shaped.name = bias = f"{output}.bias"
        proto.graph.initializer.append(shaped)
    return helper.make_node("Add", [layer.output[0], bias], [output], name=f"{output}.Add")


def _drop_unused(proto: ModelProto) -> None:
    used = {name for node in proto.graph.node for name in node.input}
    kept = [t for t in proto.graph.initializer if t.name in used]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)


def _integer_tensor(name: str, values: np.ndarray, container: str) -> TensorProto:
    """INT8, or INT4 with two values per byte, as raw bytes: another field takes up to ten each."""
    tensor = TensorProto(name=name, data_type=TensorProto.DataType.Value(container))
    tensor.dims.extend(values.shape)
    flat = values.astype(np.int8).reshape(-1)
    if container == "INT4":
        nibbles = np.append(flat, np.zeros(flat.size % 2, np.int8)).astype(np.uint8) & 15
        flat = nibbles[0::2] | (nibbles[1::2] << 4)
    tensor.raw_data = flat.tobytes()
    return tensor


def _tidy(proto: ModelProto) -> None:
    """Drop what depends on the machine that exported: stack traces, paths, shapes of values."""
    _drop_unused(proto)
    proto.producer_name, proto.producer_version = "synq-tune", __version__
    del proto.graph.value_info[:], proto.metadata_props[:], proto.graph.metadata_props[:]
    proto.graph.name, proto.graph.doc_string, proto.doc_string = "student", "", ""
    for item in (
        *proto.graph.node,
        *proto.graph.initializer,
        *proto.graph.input,
        *proto.graph.output,
    ):
        item.doc_string = ""
        del item.metadata_props[:]
    kept = [o for o in proto.opset_import if o.domain == ""]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)


def weight_codes(proto: ModelProto, layers: Iterable[str]) -> dict[str, Tensor]:
    """Codes of `layers` as int8, read from the initializers."""
    names = {layer + CODES: layer for layer in layers}
    return {
        names[tensor.name]: torch.from_numpy(numpy_helper.to_array(tensor).astype(np.int8))
        for tensor in proto.graph.initializer
        if tensor.name in names
    }


def with_activation_codes(proto: ModelProto) -> tuple[ModelProto, list[str]]:
    """A copy whose only outputs are the codes of every activation, and the activations' names."""
    new = ModelProto()
    new.CopyFrom(proto)
    names = [o for n in new.graph.node for o in n.output if o.endswith(CODES)]
    del new.graph.output[:]
    new.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.UINT8, None) for name in names
    )
    return new, [name.removesuffix(CODES) for name in names]
