"""Write everything a study hands over: both model files, golden vectors, settings, parity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor, fx

from synq_tune.config import StudySpec
from synq_tune.errors import stage
from synq_tune.export import FILE_NAMES, exporter_of, formats_of
from synq_tune.export.golden import check_golden, write_golden
from synq_tune.export.metadata import describe
from synq_tune.export.parity import parity_report
from synq_tune.export.runtime import load_model_file
from synq_tune.export.tflite_check import check_kernels
from synq_tune.finetune.divergence import check_finite_state
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.quantization.frozen import StandaloneModel, freeze
from synq_tune.store import write_bytes, write_json

GOLDEN, CONFIG, PARITY = "golden.npz", "config.yaml", "parity.json"


def export_student(
    student: fx.GraphModule,
    teacher: LoadedTeacher,
    spec: StudySpec,
    folder: Path,
    golden_images: Tensor,
    parity_images: Tensor | Iterable[Tensor],
    formats: Sequence[str] | None = None,
    batch_size: int | None = None,
    normalize: bool = True,
) -> dict[str, Any]:
    """Export a student and check what was written.

    Args:
        student: calibrated (and trained).
        teacher: the student's.
        spec: settings of the trial, searched values included.
        folder: gets a file per format, golden.npz, config.yaml, parity.json; each appears whole
            or not at all.
        golden_images: normalised (N, C, H, W); the first 32 are kept. Synthetic ones, since the
            file is handed on.
        parity_images: normalised, (N, C, H, W) or batches of it.
        formats: keys of `EXPORTERS`; None: those of `formats_of`.
        batch_size: of the ONNX files; None: any.
        normalize: whether the ONNX files normalise their input themselves.

    Returns:
        The parity report; see `parity_report`, `golden` by format from `check_golden`, and of a
        .tflite file `kernels` from `check_kernels`, of a .pte file `executorch` from `check_pte`.

    Raises:
        NonFiniteError: a weight, step or range of the student is NaN or infinite; nothing is
            written.
        ForeignError: a library could not write or read the network.
    """
    check_finite_state(student)
    with stage("export", f"teacher.model={teacher.config.model}, {folder}"):
        model = StandaloneModel(freeze(student), teacher.preprocessing).eval()
        pixels = teacher.preprocessing.denormalize(golden_images.float())
        formats = formats_of(model.frozen) if formats is None else formats
        writers = {name: exporter_of(name, batch_size, normalize, pixels) for name in formats}
        files = {name: folder / FILE_NAMES[name] for name in writers}
        metadata = describe(teacher, spec.bits, spec.quantizer)
        for name, path in files.items():
            writers[name](model, metadata, path)
        write_golden(model, pixels, folder / GOLDEN)
        settings = yaml.safe_dump(spec.model_dump(mode="json", by_alias=True), sort_keys=False)
        write_bytes(folder / CONFIG, settings.encode())
        report = parity_report(student, files, parity_images, teacher.config.model)
        report |= _run_by_their_own(files, model, pixels, teacher.config.model)
        write_json(folder / PARITY, report)
        return report


def _run_by_their_own(
    files: Mapping[str, Path], model: StandaloneModel, pixels: Tensor, python_model: str
) -> dict[str, Any]:
    """What golden vectors and the formats' own runtimes say of the files."""
    report: dict[str, Any] = {
        "golden": {
            name: check_golden(
                load_model_file(path, python_model=python_model), path.parent / GOLDEN
            )
            for name, path in files.items()
        }
    }
    if "tflite" in files:
        report["kernels"] = check_kernels(files["tflite"], pixels)
    if "pte" in files:
        from synq_tune.export.executorch_runtime import check_pte

        report["executorch"] = check_pte(files["pte"], model, pixels)
    return report
