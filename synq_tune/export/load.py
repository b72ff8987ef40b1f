"""Read an ONNX file for tools that take the model itself."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import ModelProto


def load_onnx(path: Path) -> ModelProto:
    """The checked model of a single file."""
    model = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(model)
    return model
