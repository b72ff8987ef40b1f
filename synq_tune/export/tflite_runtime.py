"""`model.tflite` in LiteRT's interpreter, by either family of its kernels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synq_tune.errors import InputError
from synq_tune.export.metadata import from_texts
from synq_tune.export.options import HARDWARE, OnnxOptions
from synq_tune.export.runtime import ModelFile
from synq_tune.export.tflite_arithmetic import Family
from synq_tune.export.tflite_builder import OPERATORS
from synq_tune.export.tflite_interpreter import KERNELS, in_int8, opened
from synq_tune.export.tflite_model import METADATA
from synq_tune.export.tflite_schema import constant, operators, read_model

_MOST_PIXELS = 2**23
"""LiteRT's reference kernels take 0.4 s for an image of 224 px: parity gives them 168 of such."""


class TfliteFile(ModelFile):
    """A .tflite file of ours.

    `fixed` runs the reference kernels, which compute what a microcontroller computes. `float` runs
    XNNPACK, which takes no convolution of 4-bit weights: those lie in int8 then, the codes the same.
    """

    def __init__(self, path: Path, family: Family = "fixed") -> None:
        self.model = read_model(path)
        super().__init__(path, from_texts(_texts(self.model, path), path))
        _check_operators(self.model, path)
        self.family = family
        self.content = path.read_bytes()
        if family == "float":
            self.content = in_int8(self.content)
        else:
            self.most_pixels = _MOST_PIXELS
        self._runs: dict[tuple[int, bool], Any] = {}

    @property
    def options(self) -> OnnxOptions:
        return HARDWARE

    def _logits(self, images: Tensor) -> Tensor:
        run = self.run(images)
        return torch.from_numpy(run.get_tensor(run.get_output_details()[0]["index"]))

    def run(self, images: Tensor, keeps: bool = False) -> Any:
        """The interpreter after it computed images (N, C, H, W) in [0, 1].

        With `keeps` it has the values of every tensor, not of the output alone.
        """
        run = self._interpreter(len(images), keeps)
        source = run.get_input_details()[0]["index"]
        run.set_tensor(source, np.ascontiguousarray(images.float().permute(0, 2, 3, 1).cpu()))
        run.invoke()
        return run

    def _interpreter(self, count: int, keeps: bool) -> Any:
        if (count, keeps) not in self._runs:
            self._runs.clear()  # one batch size at a time: values of large ones take memory
            self._runs[count, keeps] = self._opened(count, keeps)
        return self._runs[count, keeps]

    def _opened(self, count: int, keeps: bool) -> Any:
        try:
            return opened(self.content, KERNELS[self.family], count, torch.get_num_threads(), keeps)
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"{self.path}: `LiteRT loads the model` must hold, but got: "
                f"{str(error).strip().splitlines()[0]}."
            ) from error

    def weight_codes(self) -> dict[str, Tensor]:
        tensors = {t.name.decode(): i for i, t in enumerate(self.model.subgraphs[0].tensors)}
        found = {}
        for name, flat in self.metadata["layers"].items():
            index = tensors[f"{name}.weight"]
            codes = torch.from_numpy(np.array(constant(self.model, index)))
            axis = self.model.subgraphs[0].tensors[index].quantization.quantizedDimension
            found[name] = _channels_first(codes, axis, flat)
        return found

    def activation_codes(self, images: Tensor) -> dict[str, Tensor]:
        run, found = self.run(images, keeps=True), {}
        tensors = {t.name.decode(): i for i, t in enumerate(self.model.subgraphs[0].tensors)}
        for name, about in self.metadata["activations"].items():
            codes = torch.from_numpy(run.get_tensor(tensors[about["tensor"]]).astype(np.int16))
            codes = _first(codes, about["flat"]) - about["lowest"]
            found[name] = codes.clamp(0, 255).to(torch.uint8)
        return found


def _channels_first(codes: Tensor, axis: int, flat: list[int] | None) -> Tensor:
    """A weight as PyTorch lays it out."""
    if codes.dim() == 4:
        return codes.permute((3, 0, 1, 2) if axis == 3 else (0, 3, 1, 2)).contiguous()
    return codes if flat is None else _first(codes, flat)


def _first(codes: Tensor, flat: list[int] | None) -> Tensor:
    """(N, H, W, C), or that in one axis, as (N, C, H, W) or that in one axis."""
    if flat is not None:
        channels, height, width = flat
        codes = codes.reshape(-1, height, width, channels).permute(0, 3, 1, 2)
        return codes.reshape(len(codes), -1)
    return codes.permute(0, 3, 1, 2) if codes.dim() == 4 else codes


def _texts(model: Any, path: Path) -> dict[str, str]:
    entries = {e.name.decode(): model.buffers[e.buffer].data for e in model.metadata or ()}
    if METADATA not in entries:
        return {}
    try:
        return json.loads(bytes(entries[METADATA]))
    except ValueError as error:
        raise InputError(f"{path}: `metadata is JSON` must hold, but got: {error}.") from error


def _check_operators(model: Any, path: Path) -> None:
    """Only what we write: an operator of another's own would run code of theirs."""
    for name, _ in operators(model):
        if name not in OPERATORS:
            raise InputError(
                f"{path}: `operators are those that synq-tune writes` must hold, but got {name}."
            )
