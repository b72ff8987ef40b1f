"""The lines about exported files."""

from __future__ import annotations

from synq_tune.config.load import load_space
from synq_tune.study.exported import file_lines
from synq_tune.study.stages import Parity
from synq_tune.study.state import StudyState
from tests.study.test_summary import apply_stage


def _report(**extra: float) -> dict:
    levels = {"onnx BASIC": 100.0, "onnx ALL": 99.5, "packed": 100.0}
    return {
        "sizes": {
            "float32": 400_000,
            "packed_theoretical": 44_000,
            "onnx": 100_000,
            "packed": 50_000,
        },
        "logits": {k: {"images": 1152, "agreement": v, **extra} for k, v in levels.items()},
    }


def _state(report: dict) -> StudyState:
    state = StudyState(load_space("digits_w3a3"), {})
    apply_stage(state, Parity(report))
    return state


def test_a_file_has_size_ratio_agreement_and_time() -> None:
    """The worst level's agreement, and the time of the level that runtimes take by themselves."""
    onnx, packed = file_lines(_state(_report(ms_per_image=0.2512)))
    assert onnx.split("  ")[0] == "onnx"
    for text in ("0.10 MB", "4.0 times smaller", "99.50 % of 1,152 images", "0.25 ms an image"):
        assert text in onnx
    assert "8.0 times smaller" in packed and "100.00 %" in packed


def test_reports_of_earlier_versions_have_no_time() -> None:
    """They are shown without it."""
    assert all("ms an image" not in line for line in file_lines(_state(_report())))


def test_before_the_export_there_is_nothing_to_say() -> None:
    """No line."""
    assert file_lines(StudyState(load_space("digits_w3a3"), {})) == []
