"""Biases of quantized layers: int32 on the grid of the accumulator, or in float behind the
layer."""

from __future__ import annotations

from onnx import ModelProto, NodeProto, helper, numpy_helper
from torch import nn

from synq_tune.export.onnx_nodes import bias_nodes
from synq_tune.export.onnx_translate import layer_of


def write_integer_biases(proto: ModelProto, frozen: nn.Module) -> None:
    """Give the layers that have `bias_codes` (see `hardware.prepared`) these as third input."""
    weights = {n.output[0]: layer_of(n) for n in proto.graph.node if n.op_type == "Weight"}
    nodes: list[NodeProto] = []
    for node in proto.graph.node:
        name = _layer(node, weights)
        layer = None if name is None else frozen.get_submodule(name)
        if hasattr(layer, "bias_codes") and len(node.input) == 3:
            arrays = (layer.bias_codes.cpu().numpy(), layer.bias_scale.cpu().numpy())
            new, tensors = bias_nodes(f"{name}.bias", *arrays)
            node.input[2] = new[0].output[0]
            proto.graph.initializer.extend(tensors)
            nodes += new
        nodes.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _layer(node: NodeProto, weights: dict[str, str]) -> str | None:
    is_layer = node.op_type in ("Conv", "Gemm") and len(node.input) > 1
    return weights.get(node.input[1]) if is_layer else None


def separate_biases(proto: ModelProto) -> None:
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
