"""Where each format is exact, measured: the bundled CNN and ViT in every file, by every runtime.

Nothing is trained. The students are calibrated on digits, which is enough to compare codes.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from synq_tune.config import StudySpec
from synq_tune.config.load import load_space
from synq_tune.data.digits import digits_half
from synq_tune.errors import InputError
from synq_tune.export import EXPORTERS
from synq_tune.export.best import export_student
from synq_tune.export.parity import file_bytes
from synq_tune.models.teacher import LoadedTeacher, load_teacher
from synq_tune.process.progress import progress_bar
from synq_tune.quantization.student import calibrate, quantize_student
from synq_tune.text_table import markdown

HEAD = ("network", "bits", "quantizer", "file", "kB", "runtime", "weight codes that differ",
        "value codes that differ", "compared with", "class of the student, %")  # fmt: skip
SUBJECTS = (
    *(("CNN", "digits_w8a8", quantizer, weights, values)
      for quantizer in ("deploy", "deploy_symmetric") for weights, values in ((8, 8), (4, 8), (4, 4))),
    *(("ViT", "digits_vit_w4a8", "vit_lsq", weights, 8) for weights in (8, 4)),
)  # fmt: skip
"""Name, space, quantizer, bits of weights, bits of values."""
_CALIBRATION, _IMAGES = 256, 320
_RUNTIMES = {"packed": "PyTorch", "openvino": "OpenVINO", "pte": "ExecuTorch"}
_ONNX, _LITERT = "ONNX Runtime", "LiteRT"


@dataclass(frozen=True)
class Exported:
    """A format of one student: what its check says, or why it was refused."""

    format: str
    file: Path | None
    report: Mapping[str, Any]
    refusal: str = ""


def probe_formats(folder: Path, formats: Sequence[str] = tuple(EXPORTERS)) -> list[str]:
    """A markdown page: versions, and a row per network, width, file and runtime.

    Args:
        folder: gets the files.
        formats: keys of `EXPORTERS`.
    """
    rows: list[tuple[str, ...]] = []
    with progress_bar(len(SUBJECTS) * len(formats), "probes") as bar:
        for network, space, quantizer, weights, values in SUBJECTS:
            about = network, f"W{weights}A{values}", f"`{quantizer}`"
            for exported in _files(space, quantizer, weights, values, folder, formats):
                rows += [(*about, *cells) for cells in _rows(exported)]
                bar.update(1)
    return [_machine(), "", *markdown(HEAD, rows)]


def _machine() -> str:
    names = ("torch", "onnxruntime", "openvino", "ai-edge-litert", "executorch")
    found = [next(iter(metadata.distributions(name=name)), None) for name in names]
    versions = [f"{d.metadata['Name']} {d.version}" for d in found if d is not None]
    return (
        f"On {platform.machine()}, {torch.get_num_threads()} threads, with {', '.join(versions)}."
    )


def _files(
    space: str, quantizer: str, weights: int, values: int, folder: Path, formats: Sequence[str]
) -> Iterator[Exported]:
    spec = load_space(space)
    bits = spec.bits.model_copy(update={"weights": weights, "activations": values})
    spec = spec.model_copy(update={"quantizer": quantizer, "bits": bits})
    teacher = load_teacher(spec.teacher)
    images = teacher.preprocessing.normalize(digits_half("test").images[:_IMAGES].float() / 255)
    student = quantize_student(teacher, bits, quantizer)
    calibrate(student, images[:_CALIBRATION].split(64))
    for name in formats:
        place = folder / f"{spec.teacher.model}_{quantizer}_w{weights}a{values}" / name
        yield _exported(name, student, teacher, spec, place, images)


def _exported(
    name: str, student: fx.GraphModule, teacher: LoadedTeacher, spec: StudySpec, folder: Path,
    images: Tensor,
) -> Exported:  # fmt: skip
    try:
        report = export_student(student, teacher, spec, folder, images, images, formats=[name])
    except InputError as error:
        return Exported(name, None, {}, str(error).split(". ")[0])
    known = {path.suffix for path in folder.iterdir()} - {".npz", ".yaml", ".json", ".bin"}
    return Exported(name, next(p for p in folder.iterdir() if p.suffix in known), report)


def _rows(exported: Exported) -> Iterator[tuple[str, ...]]:
    """Cells behind the network's, one row per runtime that read the file."""
    name, report = exported.format, exported.report
    if exported.file is None:
        yield f"`--format {name}`", "", "", "", "", exported.refusal, ""
        return
    file = f"`{exported.file.name}`", f"{file_bytes(exported.file) / 1000:.0f}"
    weights = report["weight_codes"][name]["mismatches"]
    readable = report["weight_codes"][name]["codes"] > 0
    for label, logits in report["logits"].items():
        how = label.removeprefix(name).strip()
        values, reference = _values(name, how, report)
        codes = str(weights) if readable else "cannot be read"
        yield *file, _runtime(name, how), codes, values, reference, f"{logits['agreement']:.1f}"


def _runtime(format_: str, how: str) -> str:
    if format_ == "tflite":
        return f"{_LITERT}, kernels `{how}`"
    return _RUNTIMES.get(format_, f"{_ONNX}, {how}")


def _values(format_: str, how: str, report: Mapping[str, Any]) -> tuple[str, str]:
    """How many codes of values differ, and from what; empty where nobody read them."""
    if format_ == "tflite":
        return _share(report["kernels"][how]), f"the reference of `{how}`"
    if format_ == "pte":
        return _share(report["executorch"]["XNNPACK"]), "the same integers in PyTorch"
    if how not in ("", "BASIC"):
        return "", ""
    return _share(report["golden"][format_]["activation_codes"]), "the student"


def _share(counts: Mapping[str, Any]) -> str:
    return f"{counts['mismatches']:,} of {counts['codes']:,}"
