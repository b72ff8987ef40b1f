"""Model files: how the best student leaves the program, and the proof that it is the same one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

# Read when onnxruntime is loaded: since 1.31 it reports its use to its maker, on Linux too.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from torch import Tensor, fx

from synq_tune.errors import InputError, lookup
from synq_tune.export.executorch_model import executorch, write_pte
from synq_tune.export.hardware import reads_integers
from synq_tune.export.onnx_model import write_onnx
from synq_tune.export.openvino_model import openvino, write_openvino
from synq_tune.export.options import HARDWARE, PTE, STORAGE, TENSORRT, OnnxOptions
from synq_tune.export.packed import write_packed
from synq_tune.export.tflite_model import fits_tflite, write_tflite
from synq_tune.export.tflite_schema import schema
from synq_tune.quantization.frozen import StandaloneModel

Exporter = Callable[[StandaloneModel, dict[str, Any], Path], dict[str, Any]]
"""(model, metadata, path) → the metadata written, with the containers chosen."""

OPTIONS: dict[str, OnnxOptions] = {
    "onnx": STORAGE,
    "hardware": HARDWARE,
    "tensorrt": TENSORRT,
    "openvino": STORAGE,
    "pte": PTE,
}
"""Of the formats that know a batch size and normalised input."""

EXPORTERS: dict[str, Exporter] = {
    "onnx": write_onnx,
    "packed": write_packed,
    "hardware": partial(write_onnx, options=HARDWARE),
    "tensorrt": partial(write_onnx, options=TENSORRT),
    "openvino": write_openvino,
    "tflite": write_tflite,
    "pte": write_pte,
}

FILE_NAMES = {
    "onnx": "model.onnx",
    "packed": "model.packed.safetensors",
    "hardware": "model.hardware.onnx",
    "tensorrt": "model.tensorrt.onnx",
    "openvino": "model.openvino.xml",
    "tflite": "model.tflite",
    "pte": "model.pte",
}

_NEEDS = {"tflite": schema, "openvino": openvino, "pte": executorch}
"""What refuses a format whose extra is not installed."""

ALWAYS = ("onnx", "packed")
"""The formats every student is written in."""


def formats_of(frozen: fx.GraphModule) -> tuple[str, ...]:
    """`ALWAYS`, and `hardware` for a network that integer hardware can run as it is; `tflite` too
    where LiteRT is installed and has an operator for all of it."""
    if not reads_integers(frozen):
        return ALWAYS
    return (*ALWAYS, "hardware", *(("tflite",) if fits_tflite(frozen) else ()))


def exporter_of(
    format_: str,
    batch_size: int | None = None,
    normalize: bool = True,
    images: Tensor | None = None,
) -> Exporter:
    """The exporter of a format, with what its file is to do differently.

    Args:
        format_: key of `EXPORTERS`.
        batch_size: of a format of `OPTIONS`; None: any, for TensorRT and ExecuTorch 1.
        normalize: whether a file of such a format normalises its input itself.
        images: see `write_tflite`.

    Raises:
        InputError: the format is unknown, what writes it is not installed, or it is none of
            `OPTIONS` and asked for something else.
    """
    lookup("format", format_, EXPORTERS)
    if format_ in _NEEDS:
        _NEEDS[format_]()
    if format_ not in OPTIONS:
        if batch_size is not None or not normalize:
            raise InputError(
                "`a batch size or input without normalisation is asked of a format that has them` "
                f"must hold, but got format={format_}. Use --format {' or '.join(OPTIONS)}."
            )
        return partial(write_tflite, images=images) if format_ == "tflite" else EXPORTERS[format_]
    options = replace(OPTIONS[format_], normalize=normalize)
    if batch_size is not None:
        options = replace(options, batch_size=batch_size)
    return partial(EXPORTERS[format_], options=options, **_images(format_, images))


def _images(format_: str, images: Tensor | None) -> dict[str, Tensor | None]:
    return {"images": images} if format_ == "pte" else {}
