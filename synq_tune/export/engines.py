"""The runtimes that may run a model file, each behind the same two questions.

An engine opens a file and gives a `Runner`: logits for images, and how many of the multiplying
operations run in integers. A runtime that is not installed is one that does not open anything.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from synq_tune.export.runtime import ONNX_LEVELS, PRECISE, PROVIDERS, load_model_file
from synq_tune.export.tflite_interpreter import opened
from synq_tune.export.tflite_schema import is_installed, operators, read_model

_INTEGER = ("QLinearConv", "ConvInteger", "QGemm", "QLinearMatMul", "MatMulInteger")
_MULTIPLYING = (
    *_INTEGER,
    "Conv",
    "FusedConv",
    "NhwcFusedConv",
    "Gemm",
    "FusedGemm",
    "MatMul",
    "MatMulNBits",
)
_LITERT_MULTIPLYING = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_OPENVINO_MULTIPLYING = ("Convolution", "FullyConnected", "MatMul")


class NotInstalledError(RuntimeError):
    """The runtime is not on this machine."""


@dataclass(frozen=True)
class Runner:
    """A file opened by a runtime."""

    run: Callable[[np.ndarray], np.ndarray]
    """Images as the file takes them, float32 (N, C, H, W) → logits (N, K)."""
    kernels: str
    """`3 of 4`: of the operations that multiply weights, those in integers."""


@dataclass(frozen=True)
class Engine:
    """A way to run files of one kind: (path, threads, name of the user's own network) → runner."""

    name: str
    suffix: str
    open: Callable[[Path, int, str | None], Runner]


def _share(operators: Counter[str], integer: Iterable[str], all_: Iterable[str]) -> str:
    return f"{sum(operators[n] for n in integer)} of {sum(operators[n] for n in all_)}"


def _onnxruntime(level: str, precise: bool = False) -> Callable[[Path, int, str | None], Runner]:
    def open_(path: Path, threads: int, python_model: str | None) -> Runner:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = ONNX_LEVELS[level]
        options.intra_op_num_threads, options.log_severity_level = threads, 4
        # Threads that wait busily for work would take the processor from the runtime timed next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if precise:
            options.add_session_config_entry(PRECISE, "1")
        with tempfile.TemporaryDirectory() as folder:
            options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
            session = onnxruntime.InferenceSession(path, options, providers=PROVIDERS)
            graph = onnx.load(options.optimized_model_filepath).graph
        name = session.get_inputs()[0].name
        return Runner(
            lambda images: session.run(None, {name: images})[0],
            _share(Counter(node.op_type for node in graph.node), _INTEGER, _MULTIPLYING),
        )

    return open_


def _openvino(path: Path, threads: int, python_model: str | None) -> Runner:
    try:
        import openvino
    except ImportError as error:
        raise NotInstalledError("not installed") from error
    # On its own it calculates in bfloat16 where the processor can, which no other runtime here
    # does.
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(path, "CPU", settings)
    kinds: Counter[str] = Counter()
    for operation in model.get_runtime_model().get_ops():
        about = operation.get_rt_info()
        kind, precision = (_text(about[key]) for key in ("layerType", "runtimePrecision"))
        if kind in _OPENVINO_MULTIPLYING:
            kinds["integer" if precision in ("i8", "u8") else "float"] += 1
    return Runner(
        lambda images: np.array(model([images])[0]),
        _share(kinds, ("integer",), ("integer", "float")),
    )


def _text(value: Any) -> str:
    """A value of OpenVINO's runtime information, which is boxed in some of its versions."""
    return str(value.value) if hasattr(value, "value") else str(value)


def _litert(kernels: str) -> Callable[[Path, int, str | None], Runner]:
    def open_(path: Path, threads: int, python_model: str | None) -> Runner:
        if not is_installed():
            raise NotInstalledError("not installed")
        model = read_model(path)
        run = opened(path.read_bytes(), kernels, 1, threads)
        source, end = (
            about()[0]["index"] for about in (run.get_input_details, run.get_output_details)
        )

        def logits(images: np.ndarray) -> np.ndarray:
            run.set_tensor(source, np.ascontiguousarray(images.transpose(0, 2, 3, 1)))
            run.invoke()
            return run.get_tensor(end)

        layers = sum(name in _LITERT_MULTIPLYING for name, _ in operators(model))
        return Runner(logits, f"{layers} of {layers}")

    return open_


def _torch(path: Path, threads: int, python_model: str | None) -> Runner:
    model = load_model_file(path, python_model=python_model)
    layers = len(model.weight_codes())

    def run(images: np.ndarray) -> np.ndarray:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return model.logits(torch.from_numpy(images)).numpy()
        finally:
            torch.set_num_threads(before)

    return Runner(run, f"0 of {layers}")


ENGINES = (
    *(Engine(f"ONNX Runtime, {level}", ".onnx", _onnxruntime(level)) for level in ONNX_LEVELS),
    Engine(f"ONNX Runtime, ALL, {PRECISE}=1", ".onnx", _onnxruntime("ALL", precise=True)),
    Engine("OpenVINO", ".onnx", _openvino),
    Engine("OpenVINO", ".xml", _openvino),
    Engine("PyTorch", ".safetensors", _torch),
    Engine("LiteRT, XNNPACK where it can", ".tflite", _litert("AUTO")),
    Engine("LiteRT, built-in kernels", ".tflite", _litert("BUILTIN_WITHOUT_DEFAULT_DELEGATES")),
    Engine("LiteRT, reference kernels", ".tflite", _litert("BUILTIN_REF")),
)
