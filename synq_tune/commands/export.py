"""What `scripts/export.py --study` runs: any kept trial of a study, exported and checked again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synq_tune.config import StudySpec
from synq_tune.errors import InputError, NonFiniteError, stage
from synq_tune.export import FILE_NAMES, exporter_of
from synq_tune.export.best import export_student
from synq_tune.process.invocation import as_called
from synq_tune.quantization.base import quantizer_family
from synq_tune.search.checkpoints import load_student
from synq_tune.search.own_code_copies import open_sources
from synq_tune.study.ledger import Ledger
from synq_tune.study.state import Run, StudyState
from synq_tune.study.summary import best_run
from synq_tune.trial.assets import choose_device, golden_images, load_assets, parity_images


def export_trial(
    folder: Path,
    number: int | None,
    format_: str,
    output: Path,
    batch_size: int | None = None,
    normalize: bool = True,
) -> str:
    """Export a completed trial into `output`; returns a line that says what was written.

    A trial whose checkpoint is no longer kept is trained again from its configuration and seed.

    Args:
        folder: of the study.
        number: of the trial; None is the best.
        format_: key of `EXPORTERS`.
        output: folder; files in it are replaced.
        batch_size: fixed, of an ONNX file; None: any.
        normalize: whether an ONNX file normalises its input itself.

    Raises:
        InputError: the folder holds no study, the trial did not complete, or the format cannot be
            what is asked for.
    """
    exporter_of(format_, batch_size, normalize)  # refuses before any work
    state = Ledger.open(folder, read_only=True).state
    refuse_shifted_weights(state.spec, format_)
    run = _completed(state, number)
    open_sources(state.spec, folder)
    spec = state.spec.of_trial(run.params)
    dataset = Path(state.stages.dataset.path)
    # STORE/datasets/ADDRESS
    assets = load_assets(state.spec, dataset, dataset.parents[1], choose_device())
    with stage("loading the student", f"{run.key} of {folder}"):
        student = load_student(assets, run, folder)
    golden = golden_images(assets)
    try:
        report = export_student(
            student,
            assets.teacher,
            spec,
            output,
            golden,
            parity_images(assets),
            (format_,),
            batch_size,
            normalize,
        )
    except NonFiniteError as error:
        raise InputError(f"{run.key}: `the student is finite` must hold, but {error}") from error
    agreement = min(entry["agreement"] for entry in report["logits"].values())
    return (
        f"{run.key}: {output / FILE_NAMES[format_]}, agrees with the student on {agreement:.2f} %"
        + _kernels("LiteRT's kernels", report.get("kernels", {}))
        + _kernels("ExecuTorch's kernels", report.get("executorch", {}))
    )


def _kernels(whose: str, report: Mapping[str, Any]) -> str:
    """What the check of a file's integers found, by family of kernels."""
    found = [
        f"{family}: {counts['mismatches']} of {counts['codes']} codes differ from the reference"
        for family, counts in report.items()
    ]
    return f"; {whose} {', '.join(found)}" if found else ""


def refuse_shifted_weights(spec: StudySpec, format_: str) -> None:
    """Raise InputError where a file for integer hardware cannot be: before the student is loaded, or trained
    again."""
    if (
        format_ in ("hardware", "pte", "tflite", "tensorrt")
        and quantizer_family(spec.quantizer).weight.has_zero_points
    ):
        raise InputError(
            "`weights have zero point 0` must hold for integer hardware, but got "
            f"quantizer={spec.quantizer}. Search with `quantizer: deploy`."
        )


def _completed(state: StudyState, number: int | None) -> Run:
    run = best_run(state) if number is None else state.runs.get(f"trial-{number:04d}")
    if run is None or run.state != "completed":
        found = "none" if run is None else f"state={run.state}"
        which = "any" if number is None else f"trial={number}"
        raise InputError(
            f"`the trial completed` must hold, but got {which}: {found}. "
            + as_called("scripts/status.py lists the trials.")
        )
    return run
