"""`model.openvino.xml` in OpenVINO on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synq_tune.errors import InputError
from synq_tune.export.metadata import from_texts
from synq_tune.export.onnx_nodes import CODES
from synq_tune.export.openvino_model import METADATA, openvino, weights_of
from synq_tune.export.runtime import ModelFile, batches_of, images_for

_SETTINGS = {"INFERENCE_PRECISION_HINT": "f32"}
"""By itself OpenVINO computes float layers in bfloat16 where the processor can."""
_GRID = ".DequantizeLinear"
"""Suffix of the operation that a grid of values became."""
_NIBBLES = {"i4", "u4"}


class OpenvinoFile(ModelFile):
    """An OpenVINO model of ours, by the kernels that OpenVINO takes by itself.

    Without VNNI instructions those saturate at weights of 8 bits.
    """

    def __init__(self, path: Path) -> None:
        self.model = _read(path)
        super().__init__(path, from_texts(_texts(self.model, path), path))
        self._run = self._compiled(self.model)

    def _compiled(self, model: Any) -> Any:
        settings = {**_SETTINGS, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        return openvino().Core().compile_model(model, "CPU", settings)

    def _logits(self, images: Tensor) -> Tensor:
        return self._outputs(self._run, images)[0]

    def _outputs(self, run: Any, images: Tensor) -> list[Tensor]:
        """What a compiled model gives for images in [0, 1], in batches of the size it takes."""
        axis = self.model.inputs[0].get_partial_shape()[0]
        size = None if axis.is_dynamic else axis.get_length()
        parts = [
            [torch.from_numpy(np.array(value)) for value in run([batch.numpy()]).values()]
            for batch in batches_of(images_for(self, images), size)
        ]
        return [torch.cat(values)[: len(images)] for values in zip(*parts, strict=True)]

    def weight_codes(self) -> dict[str, Tensor]:
        layers = self.metadata["containers"]["weights"]
        constants = {
            op.get_friendly_name(): op
            for op in self.model.get_ops()
            if op.get_type_name() == "Constant"
        }
        return {name: _codes(constants[name + CODES]) for name in layers}

    def activation_codes(self, images: Tensor) -> dict[str, Tensor]:
        model = self.model.clone()
        grids = {name: op for op in model.get_ordered_ops() if (name := _grid_of(op))}
        results = len(model.outputs)
        for op in grids.values():
            model.add_outputs(op.output(0))
        values = self._outputs(self._compiled(model), images)[results:]
        return {n: _counted(op, v) for (n, op), v in zip(grids.items(), values, strict=True)}


def _grid_of(op: Any) -> str | None:
    """The grid whose codes an operation gives, or whose values: OpenVINO fuses those of 8 bits."""
    if op.get_type_name() in ("Constant", "Result", "Parameter"):
        return None
    name = op.get_friendly_name()
    if op.get_type_name() == "FakeQuantize" and name.endswith(_GRID):
        return name.removesuffix(_GRID)
    codes = (n for n in op.output(0).get_names() if n.endswith(CODES))
    return next((n.removesuffix(CODES) for n in codes), None)


def _counted(grid: Any, values: Tensor) -> Tensor:
    """Codes counted from 0 of what `grid` gives: codes already, or values."""
    if grid.get_type_name() != "FakeQuantize":
        return values.to(torch.uint8)
    low, high = (float(grid.input_value(i).get_node().get_data().item()) for i in (3, 4))
    step = (high - low) / (grid.get_attributes()["levels"] - 1)
    return torch.round((values - low) / step).to(torch.uint8)


def _codes(constant: Any) -> Tensor:
    """The codes of a constant as int8; two of 4 bits lie in a byte, the first one below."""
    if constant.get_element_type().get_type_name() not in _NIBBLES:
        return torch.from_numpy(constant.get_data().astype(np.int8))
    packed = constant.data.view(np.uint8).reshape(-1)
    nibbles = np.stack([packed & 15, packed >> 4], 1).reshape(-1).astype(np.int8)
    shape = tuple(constant.get_output_shape(0))
    flat = nibbles[: int(np.prod(shape))]
    return torch.from_numpy(np.where(flat > 7, flat - 16, flat).astype(np.int8).reshape(shape))


def _read(path: Path) -> Any:
    if not weights_of(path).is_file():
        raise InputError(
            f"{path}: `{weights_of(path).name} lies beside it` must hold, but it does not. "
            "Copy both files."
        )
    try:
        return openvino().Core().read_model(path)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(f"{path}: `OpenVINO reads the model` must hold, but got: {reason}.") from (
            error
        )


def _texts(model: Any, path: Path) -> dict[str, str]:
    if not model.has_rt_info([METADATA]):
        return {}
    found = model.get_rt_info([METADATA])
    try:
        return json.loads(str(getattr(found, "value", found)))
    except ValueError as error:
        raise InputError(f"{path}: `metadata is JSON` must hold, but got: {error}.") from error
