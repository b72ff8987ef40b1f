"""The report of a study: what it needs is put together here, and written by `report/`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from synq_tune import error_log
from synq_tune.errors import first_line, full_text
from synq_tune.report.material import Material
from synq_tune.report.page import REPORT_NAME, write_page
from synq_tune.search.importances import parameter_importances
from synq_tune.study.state import StudyState
from synq_tune.tracking.writer import TrackedStudy


def write_report(state: StudyState, folder: Path) -> Path:
    """Write `report.html` into a study's folder; returns its path.

    Raises:
        OSError: the file cannot be written.
    """
    path = folder / REPORT_NAME
    write_page(Material(state, folder, parameter_importances(state)), path)
    return path


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
