"""The nodes and tensors ONNX has for integer weights, biases and activation grids.

    weight       DequantizeLinear(codes, scale, zero point), per output channel
    bias         DequantizeLinear(int32 codes, input scale · weight scale), per output channel
    activation   QuantizeLinear → uint8 (int8), Clip to k bits, DequantizeLinear

ONNX has no 3-bit type, and onnxruntime cannot load every graph with 4-bit activations, hence the
containers: INT4 or INT8 for weights, UINT8 for activations; INT8 for a runtime without zero points.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from synq_tune.errors import InputError
from synq_tune.quantization.frozen import FrozenActivation, FrozenWeight

CODES = ".codes"
"""Suffix of the initializer with a layer's codes, and of the value with an activation's."""
FLOAT_ZERO_POINT = "INT8 with float zero points"
"""Container of a layer with a channel so far from zero that no 8-bit zero point reaches it."""
CONTAINERS = {"smallest": ("INT4", "INT8"), "int8": ("INT8",)}
"""What may hold a weight, the first that does: by `OnnxOptions.weight_container`."""

_LIMITS = {"INT4": (-8, 7), "INT8": (-128, 127)}


def container_of(weight: FrozenWeight, smallest: str = "smallest") -> str:
    """The first container of `CONTAINERS[smallest]` that holds codes and zero points."""
    zero_point = -weight.zero_point
    for name in CONTAINERS[smallest]:
        low, high = _LIMITS[name]
        fits = low <= zero_point.min() and zero_point.max() <= high
        if fits and -(2 ** (weight.bits - 1)) >= low:
            return name
    return FLOAT_ZERO_POINT


def weight_nodes(
    name: str, weight: FrozenWeight, container: str, output: str, write_zeros: bool = False
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Nodes that give the real weight as `output`, and the tensors they read.

    `write_zeros` writes zero points that are all 0: onnxruntime needs them to be there where it
    moves signed weights to unsigned ones, and fuses no Gemm without.
    """
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
    if zero_point.any() or write_zeros:
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


def activation_nodes(
    name: str, grid: FrozenActivation, placeholder: NodeProto, container: str = "uint8"
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Nodes that round the placeholder's input to the grid, and the tensors they read.

    Raises:
        InputError: the `container` is int8, but the grid has other bits or a zero point.
    """
    x, y = placeholder.input[0], placeholder.output[0]
    scale_name, zero_name, largest = f"{name}.scale", f"{name}.zero_point", f"{name}.largest"
    tensors = [
        numpy_helper.from_array(grid.scale.cpu().numpy(), scale_name),
        numpy_helper.from_array(_zero_point(name, grid, container), zero_name),
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


def _zero_point(name: str, grid: FrozenActivation, container: str) -> np.ndarray:
    """ONNX's zero point of a grid of values, in its container's type."""
    if container == "uint8":
        return np.array(2 ** (grid.bits - 1) - int(grid.zero_point), dtype=np.uint8)
    if grid.zero_point or grid.bits != 8:
        raise InputError(
            "`values have 8 bits and zero point 0` must hold for TensorRT, but got "
            f"{name} with {grid.bits} bits and zero_point={-grid.zero_point:.0f}. "
            "Search with `quantizer: deploy_symmetric` and `bits.activations: 8`."
        )
    return np.array(0, dtype=np.int8)


def bias_nodes(
    output: str, codes: np.ndarray, scale: np.ndarray
) -> tuple[list[NodeProto], list[TensorProto]]:
    """The node that gives a real bias (O,) as `output`, and the tensors it reads."""
    inputs = [f"{output}{CODES}", f"{output}.scale"]
    tensors = [numpy_helper.from_array(v, n) for v, n in zip((codes, scale), inputs, strict=True)]
    return [helper.make_node("DequantizeLinear", inputs, [output], name=output, axis=0)], tensors


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
