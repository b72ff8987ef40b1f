"""The flatbuffer schema and the interpreter of LiteRT, which come with the optional extra `litert`.

The one file that imports `ai_edge_litert`, and only when something is asked of it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from synq_tune.errors import InputError

IDENTIFIER = b"TFL3"
MAX_BYTES = 2**31 - 1
"""Offsets within a flatbuffer are 32 bits, signed."""


def is_installed() -> bool:
    """Whether the extra `litert` is there."""
    return importlib.util.find_spec("ai_edge_litert") is not None


def schema() -> ModuleType:
    """LiteRT's classes for the parts of a file.

    Raises:
        InputError: the extra is not installed.
    """
    return _imported("schema_py_generated")


def interpreter() -> ModuleType:
    """LiteRT's module with `Interpreter`; raises as `schema`."""
    return _imported("interpreter")


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(f"ai_edge_litert.{name}")
    except ImportError as error:
        raise InputError(
            f"`LiteRT is installed` must hold for .tflite files, but got: {error}. "
            "Install the extra: pip install 'synq-tune[litert]'."
        ) from error


def to_bytes(model: Any) -> bytes:
    """A model of the schema's object API as the bytes of a file."""
    import flatbuffers

    builder = flatbuffers.Builder(2**16)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def read_model(path: Path) -> Any:
    """The file as the schema's `ModelT`.

    Raises:
        InputError: the extra is missing, or the file is no whole .tflite file of one graph.
    """
    if path.stat().st_size > MAX_BYTES:
        raise InputError(
            f"{path}: `size <= {MAX_BYTES} bytes` must hold, but got {path.stat().st_size}."
        )
    return parsed(path.read_bytes(), path)


def parsed(data: bytes, path: Path) -> Any:
    """The bytes of a file as the schema's `ModelT`; raises as `read_model`."""
    if data[4:8] != IDENTIFIER:
        raise _damaged(path, f"identifier {data[4:8]!r}")
    try:
        model = schema().ModelT.InitFromPackedBuf(data)
        # The first thing that a cut file lacks is what its offsets point to.
        for buffer in model.buffers:
            _ = None if buffer.data is None else len(buffer.data)
        _check_graph(model)
    except InputError:
        raise
    except Exception as error:  # the generated reader raises whatever a wrong offset leads to
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    return model


def _check_graph(model: Any) -> None:
    (graph,) = model.subgraphs
    for tensor in graph.tensors:
        _ = model.buffers[tensor.buffer], tensor.name.decode()
    for node in graph.operators:
        _ = model.operatorCodes[node.opcodeIndex]
        _ = [graph.tensors[i] for i in (*node.inputs, *node.outputs)]


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path}: `the file is a whole .tflite model` must hold, but got {reason[:160]}."
    )


def operator_names() -> dict[int, str]:
    """Name of each of the runtime's operators by its code."""
    return {v: k for k, v in vars(schema().BuiltinOperator).items() if isinstance(v, int)}


def operators(model: Any) -> Iterator[tuple[str, Any]]:
    """(name of the operator, the node) in order of computation."""
    names = operator_names()
    for node in model.subgraphs[0].operators:
        yield names[model.operatorCodes[node.opcodeIndex].builtinCode], node


def constant(model: Any, index: int) -> np.ndarray | None:
    """Values of a constant tensor in its shape, INT4 as int8; None where the graph computes it."""
    tensor = model.subgraphs[0].tensors[index]
    data = model.buffers[tensor.buffer].data
    if data is None or len(data) == 0:
        return None
    raw = np.frombuffer(bytes(data), np.uint8)
    kind = schema().TensorType
    if tensor.type == kind.INT4:
        return unpacked(raw, int(np.prod(tensor.shape))).reshape(tensor.shape)
    types = {kind.FLOAT32: np.float32, kind.INT32: np.int32, kind.INT8: np.int8}
    return raw.view(types[tensor.type]).reshape(tensor.shape)


def packed(codes: np.ndarray) -> np.ndarray:
    """Codes of 4 bits, two in a byte, the first in its low half, as uint8."""
    flat = codes.astype(np.int8).reshape(-1)
    halves = np.append(flat, np.zeros(flat.size % 2, np.int8)).view(np.uint8) & 15
    return halves[0::2] | (halves[1::2] << 4)


def unpacked(raw: np.ndarray, count: int) -> np.ndarray:
    """Inverse of `packed`, as int8."""
    halves = np.stack([raw & 15, raw >> 4], 1).reshape(-1)[:count].astype(np.int8)
    return np.where(halves > 7, halves - 16, halves).astype(np.int8)
