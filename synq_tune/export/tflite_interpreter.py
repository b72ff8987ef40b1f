"""LiteRT's interpreter, by the kernels of one family."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from synq_tune.export.tflite_arithmetic import Family
from synq_tune.export.tflite_schema import constant, interpreter, schema, to_bytes

KERNELS: dict[Family, str] = {"fixed": "BUILTIN_REF", "float": "AUTO"}
"""What LiteRT calls the kernels of each family."""


def opened(
    content: bytes, kernels: str, count: int = 1, threads: int = 1, keeps: bool = False
) -> Any:
    """LiteRT's interpreter of a file.

    Args:
        content: the file's bytes.
        kernels: name of one of LiteRT's `OpResolverType`.
        count: images at once.
        threads: to compute with.
        keeps: whether the values of every tensor can be read afterwards.
    """
    library = interpreter()
    with _quiet():
        run = library.Interpreter(
            model_content=content,
            num_threads=threads,
            experimental_op_resolver_type=library.OpResolverType[kernels],
            experimental_preserve_all_tensors=keeps,
        )
        about = run.get_input_details()[0]
        run.resize_tensor_input(about["index"], (count, *about["shape"][1:]))
        run.allocate_tensors()
    return run


def in_int8(content: bytes) -> bytes:
    """The file with every 4-bit weight in int8, one byte a code."""
    model, kinds = schema().ModelT.InitFromPackedBuf(content), schema().TensorType
    for index, tensor in enumerate(model.subgraphs[0].tensors):
        if tensor.type == kinds.INT4:
            codes = constant(model, index)
            model.buffers[tensor.buffer].data = codes.reshape(-1).view(np.uint8)
            tensor.type = kinds.INT8
    return to_bytes(model)


@contextmanager
def _quiet() -> Iterator[None]:
    """LiteRT's C++ writes to stderr that XNNPACK is there, and has no setting for it; its Python
    warns that keeping tensors takes memory, which is why it is asked to."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
