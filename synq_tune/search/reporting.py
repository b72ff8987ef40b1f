"""The report of a study: what it needs is put together here, and written by `report/`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import fx

from synq_tune import error_log
from synq_tune.config import Bits, FineTune
from synq_tune.errors import InputError, first_line, full_text
from synq_tune.report.evidence import Evidence, Model, gather
from synq_tune.report.material import Material
from synq_tune.report.page import REPORT_NAME, write_page
from synq_tune.search.checkpoints import is_kept, load_student
from synq_tune.search.importances import parameter_importances
from synq_tune.search.ladder import calibrated
from synq_tune.search.own_code_copies import open_sources
from synq_tune.study.state import StudyState
from synq_tune.study.summary import best_bits, best_run
from synq_tune.tracking.writer import TrackedStudy
from synq_tune.trial.assets import Assets, choose_device, load_assets

_MOST_PIXELS = 2**25
"""Pixels of calibration, without a GPU, above which nobody waits for it."""
LATER = "an interrupted search does not wait for it; the command report adds it"


def material_of(
    state: StudyState,
    folder: Path,
    assets: Assets,
    student: fx.GraphModule | None,
    is_ending: bool = False,
) -> Material:
    """All that a report can be written from.

    Args:
        assets: of the study.
        student: of the best trial; None while there is none.
        is_ending: see `Material`.
    """
    best = best_run(state)
    model = None
    if student is not None and best is not None:
        config = state.spec.of_trial(best.params).finetune
        model = Model(student, config, partial(_calibrated, assets, config, best_bits(state)))
    evidence = gather(assets, model, folder, best_bits(state))
    return Material(state, folder, parameter_importances(state), evidence, is_ending)


def _calibrated(assets: Assets, config: FineTune, bits: Bits) -> fx.GraphModule | None:
    """The student before training; None where making it would take minutes."""
    height, width = assets.dataset.images.shape[2:]
    pixels = config.calibration_batches * config.batch_size * height * width
    if assets.device.type == "cpu" and pixels > _MOST_PIXELS:
        return None
    return calibrated(assets, "synthetic", assets.spec.study.seed, bits)


def write_report(state: StudyState, folder: Path) -> Path:
    """Write `report.html` into a study's folder; returns its path.

    What lies elsewhere, such as dataset and weights, may be gone: the page says so.

    Raises:
        OSError: the file cannot be written.
    """
    path = folder / REPORT_NAME
    write_page(_reloaded(state, folder), path)
    return path


def _reloaded(state: StudyState, folder: Path) -> Material:
    """A report's material, with what of the study is still there."""
    try:
        return material_of(state, folder, *_load(state, folder))
    except InputError as error:
        absent = Evidence.absent(error_log.one_line(str(error)))
        return Material(state, folder, parameter_importances(state), absent)


def _load(state: StudyState, folder: Path) -> tuple[Assets, fx.GraphModule | None]:
    made, best = state.stages.dataset, best_run(state)
    if made is None:
        raise InputError("there is no synthetic dataset yet.")
    open_sources(state.spec, folder)
    dataset = Path(made.path)
    # STORE/datasets/ADDRESS
    assets = load_assets(state.spec, dataset, dataset.parents[1], choose_device())
    if best is None or not is_kept(best, folder):
        return assets, None
    return assets, load_student(assets, best, folder)


def write_and_log(material: Material, tracked: TrackedStudy) -> Path:
    """Write `report.html` into the study's folder, and give MLflow what it may have of it.

    A store on another machine gets a copy without images, unless it was given images, too.

    Raises:
        OSError: the file cannot be written.
    """
    path = material.folder / REPORT_NAME
    write_page(material, path)
    if tracked.may_log_images:
        tracked.log_report(path)
        return path
    with tempfile.TemporaryDirectory() as folder:
        public = Path(folder) / REPORT_NAME
        write_page(material, public, is_private=False)
        tracked.log_report(public)
    return path


def without_failing(write: Callable[[], Path], folder: Path) -> Path | None:
    """A report at the end of a study spoils nothing: where it fails, one line says so.

    Args:
        write: writes it; returns its path.
        folder: of the study; the full text of an error goes into its log.
    """
    try:
        return write()
    except Exception as error:
        place = error_log.place(error_log.keep(full_text(error), "report", folder))
        said = error_log.one_line(f"report    not written: {first_line(error)}. {place}")
        print(said, file=sys.stderr, flush=True)
        return None
