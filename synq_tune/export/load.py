"""Read an ONNX file, checked before any runtime sees it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message
from onnx import ModelProto, NodeProto, TensorProto
from onnx.external_data_helper import uses_external_data

from synq_tune.errors import InputError

MAX_BYTES = 2**31 - 1
"""Protobuf takes no larger file; more is not even read."""
STANDARD_DOMAINS = ("", "ai.onnx")


def load_onnx(path: Path) -> ModelProto:
    """The checked model of a single file.

    Raises:
        InputError: the file is too large, damaged or not ONNX, refers to other files, or uses
            operators that are not ONNX's own.
    """
    if path.stat().st_size > MAX_BYTES:
        raise InputError(
            f"{path}: `size <= {MAX_BYTES} bytes` must hold, but got {path.stat().st_size}."
        )
    model = _parsed(path)
    _check_single(model, path)
    _check_operators(model, path)
    _check_model(model, path)
    return model


def _parsed(path: Path) -> ModelProto:
    try:
        return onnx.load_model_from_string(path.read_bytes())
    except DecodeError as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    reason = str(error).strip().splitlines()[0]
    return InputError(
        f"{path}: `the file is a whole ONNX model` must hold, but got: {reason}. "
        "It is truncated or not ONNX."
    )


def _check_single(model: ModelProto, path: Path) -> None:
    """A runtime would read whatever file such a tensor names, wherever it lies."""
    for tensor in _parts(model):
        if isinstance(tensor, TensorProto) and uses_external_data(tensor):
            entries = {entry.key: entry.value for entry in tensor.external_data}
            raise InputError(
                f"{path}: `the model is one file` must hold, but {tensor.name!r} lies in "
                f"{entries.get('location')!r}. Save it without external data."
            )


def _check_operators(model: ModelProto, path: Path) -> None:
    known = {(function.domain, function.name) for function in model.functions}
    for node in _parts(model):
        if not isinstance(node, NodeProto) or node.domain in STANDARD_DOMAINS:
            continue
        if (node.domain, node.op_type) not in known:
            raise InputError(
                f"{path}: `operators are ONNX's own` must hold, but got "
                f"{node.domain}.{node.op_type}."
            )


def _check_model(model: ModelProto, path: Path) -> None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise _damaged(path, error) from error


def _parts(message: Message) -> Iterator[Message]:
    """A model with everything in it, however deep: graphs within nodes, tensors, functions."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if isinstance(value, Message) else value:
                yield from _parts(part)
