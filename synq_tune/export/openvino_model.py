"""Write `model.openvino.xml` with its `.bin`: OpenVINO's own form of `model.onnx`, converted by it.

OpenVINO comes with the optional extra `openvino`, imported only when something is asked of it.
"""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from synq_tune.errors import InputError
from synq_tune.export.metadata import to_texts
from synq_tune.export.onnx_model import write_onnx
from synq_tune.export.options import STORAGE, OnnxOptions
from synq_tune.quantization.frozen import StandaloneModel
from synq_tune.store import canonical_json, write_bytes

METADATA = "synq_tune"
"""Key of our metadata in the model's runtime information."""


def openvino() -> ModuleType:
    """The library.

    Raises:
        InputError: the extra is not installed.
    """
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise InputError(
            f"`OpenVINO is installed` must hold for its files, but got: {error}. "
            "Install the extra: pip install 'synq-tune[openvino]'."
        ) from error


def write_openvino(
    model: StandaloneModel, metadata: dict[str, Any], path: Path, options: OnnxOptions = STORAGE
) -> dict[str, Any]:
    """Write the model as `path` (.xml) and a .bin of the same name beside it.

    Weights keep their integer codes, in i4 where they have 4 bits or fewer, else i8; OpenVINO
    computes a layer in integers where all that it reads is on a grid of 8 bits.

    Returns:
        The metadata written, those of `write_onnx`.

    Raises:
        InputError: the extra `openvino` is missing, or `options` ask for what the model is not.
    """
    library = openvino()  # a missing extra is said first
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "model.onnx", Path(folder) / path.name
        written = write_onnx(model, metadata, source, options)
        # Read, not `convert_model`, which multiplies 1 / std into the first layer's codes.
        converted = library.Core().read_model(source)
        converted.set_rt_info(canonical_json(to_texts(written)), METADATA)
        # Half precision, its default, would round scales and biases.
        library.save_model(converted, made, compress_to_fp16=False)
        # The .xml names the .bin by nothing but its own name: it comes last.
        write_bytes(weights_of(path), weights_of(made).read_bytes())
        write_bytes(path, made.read_bytes())
    return written


def weights_of(path: Path) -> Path:
    """The file with the tensors of an .xml file."""
    return path.with_suffix(".bin")
