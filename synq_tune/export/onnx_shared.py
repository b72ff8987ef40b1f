"""Layers that a network calls more than once, in files for integer runtimes."""

from __future__ import annotations

from onnx import ModelProto, NodeProto


def separate_weights(proto: ModelProto) -> None:
    """Give each reader of a weight's placeholder one of its own.

    onnxruntime writes a copy of a weight with unsigned codes beside it, under one name for all who
    read it: with two readers it refuses the whole file.
    """
    weights = {n.output[0]: n for n in proto.graph.node if n.op_type == "Weight"}
    nodes: list[NodeProto] = []
    read: set[str] = set()
    for node in proto.graph.node:
        for i, name in enumerate(node.input):
            if name in weights and name in read:
                nodes.append(_copy(weights[name], f"{name}.{len(nodes)}"))
                node.input[i] = nodes[-1].output[0]
            read.add(name)
        nodes.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _copy(node: NodeProto, output: str) -> NodeProto:
    new = NodeProto()
    new.CopyFrom(node)
    new.name = new.output[0] = output
    return new
