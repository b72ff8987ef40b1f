"""Proof that the exported files are the student: what agrees, and every exception by name."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor, fx

from synq_tune.data.batches import ImageBatches, batch_size
from synq_tune.export.compare import LogitComparison, code_mismatches
from synq_tune.export.hardware import prepared
from synq_tune.export.openvino_model import weights_of
from synq_tune.export.packed import float_bytes, packed_bytes
from synq_tune.export.runtime import PROVIDERS, ModelFile, load_model_file
from synq_tune.export.tflite_arithmetic import FAMILIES
from synq_tune.process.progress import progress_bar
from synq_tune.quantization.frozen import freeze, frozen_layers

LEVELS = ("BASIC", "ALL")
"""onnxruntime optimisation levels compared: the reference, and what a user gets by default."""


def parity_report(
    student: fx.GraphModule,
    files: Mapping[str, Path],
    images: Tensor | Iterable[Tensor],
    python_model: str | None = None,
) -> dict[str, Any]:
    """Compare exported files with the PyTorch student.

    Args:
        student: calibrated (and trained).
        files: format → file.
        images: normalised float32, (N, C, H, W) or batches of it.
        python_model: see `load_model_file`.

    Returns:
        runtime, weight_codes by format, logits by format and level or family of kernels (see
        LogitComparison; `index` counts over all images), sizes in bytes, containers by format.
    """
    frozen = freeze(student)
    device = next((b.device for b in frozen.buffers()), torch.device("cpu"))
    loaded = _load(files, python_model, device)
    by_format = {name.split()[0]: model for name, model in loaded.items()}
    return {
        "runtime": _runtime(),
        "weight_codes": {n: _weight_codes(frozen, m) for n, m in by_format.items()},
        "logits": _compare(student, loaded, images, device),
        "sizes": _sizes(frozen, files),
        "containers": {name: model.metadata["containers"] for name, model in by_format.items()},
    }


def _weight_codes(frozen: fx.GraphModule, model: ModelFile) -> dict[str, Any]:
    """Codes as the file's options make them, against those in the file."""
    weights = frozen_layers(prepared(frozen, model.options))
    codes = {n: w.codes for n, w in weights.items() if n not in model.left_out}
    return code_mismatches(codes, model.weight_codes())


def _load(
    files: Mapping[str, Path], python_model: str | None, device: torch.device
) -> dict[str, ModelFile]:
    """The files by "packed", "onnx BASIC", "onnx ALL", "tflite fixed", "tflite float", …"""
    loaded = {}
    for name, path in files.items():
        if path.suffix == ".tflite":
            loaded |= {f"{name} {f}": load_model_file(path, family=f) for f in FAMILIES}
            continue
        for level in _levels(name, path):
            label = f"{name} {level}".strip()
            loaded[label] = load_model_file(path, level or "BASIC", python_model, device)
    return loaded


def _levels(format_: str, path: Path) -> tuple[str, ...]:
    if path.suffix != ".onnx":
        return ("",)
    # Above BASIC onnxruntime 1.31 makes signed values unsigned, and then refuses its own graph.
    return ("BASIC",) if format_ == "tensorrt" else LEVELS


@torch.no_grad()
def _compare(
    student: fx.GraphModule,
    loaded: Mapping[str, ModelFile],
    images: Tensor | Iterable[Tensor],
    device: torch.device,
) -> dict[str, Any]:
    comparisons = {name: LogitComparison() for name in loaded}
    with progress_bar(_count(images), "parity", bool(loaded), "image", may_be_short=True) as bar:
        for batch in _batches(images) if loaded else ():
            preprocessing = next(iter(loaded.values())).preprocessing
            pixels = preprocessing.denormalize(batch)
            # The student sees what the files' own normalisation makes of the same pixels.
            expected = student(preprocessing.normalize(pixels.to(device)))
            for name, model in loaded.items():
                if comparisons[name].images * pixels[0, 0].numel() >= model.most_pixels:
                    continue
                started = time.perf_counter()
                logits = model.logits(pixels)
                comparisons[name].add(expected, logits, time.perf_counter() - started)
            bar.update(len(batch))
    return {name: comparison.report() for name, comparison in comparisons.items()}


def _count(images: Tensor | Iterable[Tensor]) -> int | None:
    return len(images) if isinstance(images, Tensor | ImageBatches) else None


def _batches(images: Tensor | Iterable[Tensor]) -> Iterator[Tensor]:
    batches = [images] if isinstance(images, Tensor) else images
    for batch in batches:
        yield from batch.float().split(batch_size(*batch.shape[2:]))


def _runtime() -> dict[str, Any]:
    return {
        "name": "onnxruntime",
        "version": onnxruntime.__version__,
        "providers": PROVIDERS,
        "levels": list(LEVELS),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def file_bytes(path: Path) -> int:
    """Bytes of a model file, with those of its tensors where they lie beside it."""
    tensors = weights_of(path) if path.suffix == ".xml" else None
    return path.stat().st_size + (tensors.stat().st_size if tensors else 0)


def _sizes(frozen: fx.GraphModule, files: Mapping[str, Path]) -> dict[str, int]:
    """Bytes of each file, of the float32 teacher, and of the packed one without any header."""
    return {
        "float32": float_bytes(frozen),
        "packed_theoretical": packed_bytes(frozen),
        **{name: file_bytes(path) for name, path in files.items()},
    }
