"""The report of a study: what it needs is put together here, and written by `report/`."""

from __future__ import annotations

from pathlib import Path

from synq_tune.report.material import Material
from synq_tune.report.page import REPORT_NAME, write_page
from synq_tune.search.importances import parameter_importances
from synq_tune.study.state import StudyState


def material_of(state: StudyState, folder: Path) -> Material:
    """What a report is written from."""
    return Material(state, folder, parameter_importances(state))


def write_report(state: StudyState, folder: Path) -> Path:
    """Write `report.html` into a study's folder; returns its path.

    Raises:
        OSError: the file cannot be written.
    """
    path = folder / REPORT_NAME
    write_page(material_of(state, folder), path)
    return path
