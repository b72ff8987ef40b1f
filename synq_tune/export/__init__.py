"""Model files: how the best student leaves the program, and the proof that it is the same one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from synq_tune.export.onnx_model import write_onnx
from synq_tune.export.packed import write_packed
from synq_tune.quantization.frozen import StandaloneModel

Exporter = Callable[[StandaloneModel, dict[str, Any], Path], dict[str, Any]]
"""(model, metadata, path) → the metadata written, with the containers chosen."""

EXPORTERS: dict[str, Exporter] = {"onnx": write_onnx, "packed": write_packed}

FILE_NAMES = {"onnx": "model.onnx", "packed": "model.packed.safetensors"}
