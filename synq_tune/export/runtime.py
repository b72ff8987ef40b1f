"""Run a model file, whichever format it has, and look inside it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnx import ModelProto
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
from torch import Tensor

from synq_tune.data.batches import batch_size
from synq_tune.errors import InputError, in_stage, lookup
from synq_tune.export.load import load_onnx
from synq_tune.export.metadata import from_texts, preprocessing_of
from synq_tune.export.onnx_model import outputs_of_input, weight_codes, with_activation_codes
from synq_tune.export.onnx_nodes import CODES
from synq_tune.export.onnx_translate import INPUT, OUTPUT
from synq_tune.export.options import OnnxOptions, options_of
from synq_tune.export.packed import build_packed, packed_codes, read_packed
from synq_tune.export.tflite_arithmetic import Family
from synq_tune.quantization.frozen import activation_codes

ONNX_LEVELS = {
    "DISABLE_ALL": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "BASIC": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "EXTENDED": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "ALL": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
PROVIDERS = ["CPUExecutionProvider"]
PRECISE = "session.x64quantprecision"
"""Session option that hardware files need on x86 processors without VNNI, whose kernels saturate.

Never set for `model.onnx`: onnxruntime then refuses symmetric 8-bit weights without a zero point.
"""
_ORT_ERRORS = (
    ort_errors.Fail, ort_errors.InvalidArgument, ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf, ort_errors.NotImplemented, ort_errors.RuntimeException,
)  # fmt: skip


class ModelFile(ABC):
    """A loaded model file; it states its own input contract and classes."""

    most_pixels: float = math.inf
    """Of the images that parity gives it, where its runtime is slow."""

    def __init__(self, path: Path, metadata: dict[str, Any]) -> None:
        self.path = path
        self.metadata = metadata
        self.preprocessing = preprocessing_of(metadata, path)
        self.num_classes = int(metadata["num_classes"])

    @property
    def options(self) -> OnnxOptions:
        """What was done to the student to make the file."""
        return options_of(self.metadata)

    @property
    def left_out(self) -> frozenset[str]:
        """Layers and grids of the network that the file lacks, since they change no logit."""
        return frozenset(self.metadata.get("left_out", ()))

    def logits(self, images: Tensor, at_once: int | None = None) -> Tensor:
        """Logits (N, K), on the CPU, of float32 images (N, C, H, W) in [0, 1].

        Args:
            images: any number.
            at_once: images in one pass; None takes what fits a CPU.

        Raises:
            InputError: the images have another shape than the file's input.
        """
        if tuple(images.shape[1:]) != self.preprocessing.shape:
            raise InputError(
                f"{self.path}: `images have shape {list(self.preprocessing.shape)}` must hold, "
                f"but got {list(images.shape[1:])}."
            )
        size = at_once or batch_size(*images.shape[2:])
        return torch.cat([self._logits(batch) for batch in images.float().split(size)])

    @abstractmethod
    def _logits(self, images: Tensor) -> Tensor: ...

    @abstractmethod
    def weight_codes(self) -> dict[str, Tensor]:
        """Integer weight codes of each layer, int8, as the file stores them."""

    @abstractmethod
    def activation_codes(self, images: Tensor) -> dict[str, Tensor]:
        """Codes (uint8, counted from 0) of each activation on images in [0, 1]."""


class OnnxFile(ModelFile):
    """`model.onnx` in onnxruntime on the CPU."""

    def __init__(self, path: Path, level: str) -> None:
        self.proto = load_onnx(path)
        texts = {entry.key: entry.value for entry in self.proto.metadata_props}
        super().__init__(path, from_texts(texts, path))
        self.level = level
        self.exact = self.options.integer_biases
        self.session = _session(self.proto, level, path, self.exact)

    def _logits(self, images: Tensor) -> Tensor:
        return self._run(self.session, [OUTPUT], images)[0]

    def _run(
        self, session: onnxruntime.InferenceSession, names: list[str], images: Tensor
    ) -> list[Tensor]:
        """Outputs for images in [0, 1], in batches of the size the file takes."""
        size = session.get_inputs()[0].shape[0]
        if not isinstance(size, int):  # a name: any
            size = None
        parts = batches_of(images_for(self, images), size)
        outputs = [session.run(names, {INPUT: part.cpu().numpy()}) for part in parts]
        run = len(images) if size is None else size * len(parts)
        fed = outputs_of_input(self.proto)
        return [
            rows_of_images([part[i] for part in outputs], run, len(images), name in fed)
            for i, name in enumerate(names)
        ]

    def weight_codes(self) -> dict[str, Tensor]:
        return weight_codes(self.proto, self.metadata["containers"]["weights"])

    def activation_codes(self, images: Tensor) -> dict[str, Tensor]:
        container = self.metadata["containers"]["activations"]
        proto, names = with_activation_codes(self.proto, container)
        session = _session(proto, self.level, self.path, self.exact)
        values = self._run(session, [name + CODES for name in names], images)
        return {n: counted_from_zero(v) for n, v in zip(names, values, strict=True)}


def counted_from_zero(codes: Tensor) -> Tensor:
    """Codes as uint8; signed ones, of 8 bits, begin at -128."""
    return codes if codes.dtype == torch.uint8 else (codes.short() + 128).to(torch.uint8)


class PackedFile(ModelFile):
    """`model.packed.safetensors` in PyTorch."""

    def __init__(self, path: Path, python_model: str | None, device: torch.device | str) -> None:
        metadata, tensors = read_packed(path)
        super().__init__(path, metadata)
        self._codes = packed_codes(metadata, tensors)
        self.model = build_packed(metadata, tensors, path, python_model).to(device)
        self.device = device

    @torch.no_grad()
    def _logits(self, images: Tensor) -> Tensor:
        return self.model(images.to(self.device)).cpu()

    def weight_codes(self) -> dict[str, Tensor]:
        return self._codes

    def activation_codes(self, images: Tensor) -> dict[str, Tensor]:
        model = self.model
        normalised = (images.to(self.device) - model.mean) / model.std
        return activation_codes(model.frozen, normalised)


@in_stage("reading the model file", str)
def load_model_file(
    path: Path | str,
    level: str = "BASIC",
    python_model: str | None = None,
    device: torch.device | str = "cpu",
    family: Family = "fixed",
) -> ModelFile:
    """Load `*.onnx`, `*.safetensors`, `*.tflite`, OpenVINO's `*.xml` or `*.pte`.

    Args:
        path: the file.
        level: key of `ONNX_LEVELS`; BASIC fuses nothing that changes an integer code.
        python_model: names the user's own network, whose code a packed file may then run.
        device: where a packed file runs.
        family: of the kernels that run a .tflite file; see `tflite_arithmetic`.

    Raises:
        InputError: the file is missing, of no such format, damaged, or not written by synq-tune, or
            what runs it is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"`the model file exists` must hold, but got {path}.")
    if path.suffix == ".onnx":
        return OnnxFile(path, lookup("optimisation level", level, ONNX_LEVELS))
    if path.suffix == ".safetensors":
        return PackedFile(path, python_model, device)
    if path.suffix == ".tflite":
        from synq_tune.export.tflite_runtime import TfliteFile

        return TfliteFile(path, family)
    if path.suffix == ".xml":
        from synq_tune.export.openvino_runtime import OpenvinoFile

        return OpenvinoFile(path)
    if path.suffix == ".pte":
        from synq_tune.export.executorch_runtime import PteFile

        return PteFile(path)
    raise InputError(
        "`a model file ends in .onnx, .safetensors, .tflite, .xml or .pte` must hold, but got "
        f"{path.name}."
    )


def rows_of_images(parts: list[np.ndarray], run: int, count: int, is_fed: bool) -> Tensor:
    """The rows of the first `count` of `run` images; a constant, such as a table of positions,
    once.

    An image has several rows where attention works in windows. Where all ran at once nothing is
    cut: the first axis need not be the images' then, as with queries, keys and values side by side.
    """
    if not is_fed or len(parts) == 1 and run == count:
        return torch.from_numpy(parts[0])
    joined = np.concatenate(parts)
    return torch.from_numpy(joined[: len(joined) // run * count])


def images_for(file: ModelFile, images: Tensor) -> Tensor:
    """Images in [0, 1] as the file takes them, which may be normalised."""
    takes_normalised = file.metadata.get("normalized_input", False)
    return file.preprocessing.normalize(images) if takes_normalised else images


def batches_of(images: Tensor, size: int | None) -> list[Tensor]:
    """The images in batches of `size`, the last one filled up by repeating them; None: at once."""
    if size is None:
        return [images]
    return [part[torch.arange(size) % len(part)] for part in images.split(size)]


def _session(
    proto: ModelProto, level: str, path: Path, exact: bool
) -> onnxruntime.InferenceSession:
    """A session; `exact` forbids integer kernels that saturate.

    Without VNNI instructions onnxruntime's kernel for uint8 · int8 adds pairs of products in 16
    bits: weights of 8 bits overflow, and classes change. The option takes another kernel on such
    machines.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = ONNX_LEVELS[level]
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    if exact:
        options.add_session_config_entry(PRECISE, "1")
    try:
        return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=PROVIDERS)
    except _ORT_ERRORS as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{path}: `onnxruntime {onnxruntime.__version__} loads the model at {level}` must "
            f"hold, but got: {reason}."
        ) from error
