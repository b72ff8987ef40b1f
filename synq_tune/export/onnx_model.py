"""Write ONNX files: standard operators only, integer weights, activations on 8-bit containers.

`model.onnx` (options `STORAGE`) holds the student as it was trained, as small as ONNX can;
`model.hardware.onnx` (options `HARDWARE`) holds what integer runtimes fuse into integer kernels.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, fx

from synq_tune import __version__
from synq_tune.export.hardware import prepared
from synq_tune.export.metadata import to_texts
from synq_tune.export.onnx_biases import separate_biases, write_integer_biases
from synq_tune.export.onnx_nodes import CODES, activation_nodes, container_of, weight_nodes
from synq_tune.export.onnx_shared import separate_weights
from synq_tune.export.onnx_translate import DOMAIN, INPUT, layer_of, translate
from synq_tune.export.options import STORAGE, OnnxOptions, metadata_of
from synq_tune.quantization.frozen import StandaloneModel, frozen_activations, frozen_layers
from synq_tune.store import write_bytes


def write_onnx(
    model: StandaloneModel, metadata: dict[str, Any], path: Path, options: OnnxOptions = STORAGE
) -> dict[str, Any]:
    """Write the model as one ONNX file, checked.

    Returns:
        The metadata written: `metadata` with `containers` and, unless they are `STORAGE`, the
        options as `onnx`; `normalized_input` where the file leaves the normalisation to its user.

    Raises:
        InputError: `options` ask for what the model is not.
    """
    frozen = prepared(model.frozen, options)
    proto = translate(StandaloneModel(frozen, model.preprocessing), options)
    if options.integer_biases:
        separate_weights(proto)
    if options.value_container == "uint8":
        write_integer_biases(proto, frozen)
    separate_biases(proto)
    containers = _fill_placeholders(proto, frozen, options)
    written = {
        **metadata,
        "containers": {"weights": containers, "activations": options.value_container.upper()},
        **metadata_of(options),
    }
    _tidy(proto)
    helper.set_model_props(proto, to_texts(written))
    onnx.checker.check_model(proto, full_check=True)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    write_bytes(path, proto.SerializeToString(deterministic=True))
    return written


def _fill_placeholders(
    proto: ModelProto, frozen: fx.GraphModule, options: OnnxOptions
) -> dict[str, str]:
    """Replace the placeholders by standard nodes; returns the container of each layer."""
    weights, activations = frozen_layers(frozen), frozen_activations(frozen)
    containers: dict[str, str] = {}
    nodes: list[NodeProto] = []
    for node in proto.graph.node:
        if node.domain != DOMAIN:
            nodes.append(node)
        elif node.op_type == "Weight":
            name = layer_of(node)
            known = name in containers
            containers[name] = container_of(weights[name], options.weight_container)
            # A second call's tensors: its own in files for integer runtimes, else those of the
            # first.
            is_own = known and options.integer_biases
            new, tensors = weight_nodes(
                f"{name}.{node.output[0]}" if is_own else name,
                weights[name],
                containers[name],
                node.output[0],
                options.integer_biases,
            )
            nodes += new
            proto.graph.initializer.extend(tensors if is_own or not known else [])
        else:
            name = layer_of(node)
            new, tensors = activation_nodes(name, activations[name], node, options.value_container)
            nodes += new
            proto.graph.initializer.extend(tensors)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return {name: containers[name] for name in weights if name in containers}


def _drop_unused(proto: ModelProto) -> None:
    used = {name for node in proto.graph.node for name in node.input}
    kept = [t for t in proto.graph.initializer if t.name in used]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)


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


def with_activation_codes(proto: ModelProto, container: str) -> tuple[ModelProto, list[str]]:
    """A copy whose only outputs are the codes of every activation, and the activations' names."""
    type_ = TensorProto.DataType.Value(container)
    new = ModelProto()
    new.CopyFrom(proto)
    names = [o for n in new.graph.node for o in n.output if o.endswith(CODES)]
    del new.graph.output[:]
    new.graph.output.extend(helper.make_tensor_value_info(name, type_, None) for name in names)
    return new, [name.removesuffix(CODES) for name in names]


def outputs_of_input(proto: ModelProto) -> set[str]:
    """Names of all values that depend on the images; the others are constants."""
    fed = {INPUT}
    for node in proto.graph.node:  # in order of computation, as ONNX demands
        if fed.intersection(node.input):
            fed.update(node.output)
    return fed
