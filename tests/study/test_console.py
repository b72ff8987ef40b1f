"""The lines of a running study."""

from __future__ import annotations

from synq_tune.config.load import load_space
from synq_tune.study.console import run_line
from synq_tune.study.state import StudyState, apply
from tests.study.test_summary import add


def test_a_trial_starts_once() -> None:
    """A state that is kept between the parts of a reconstruction prints no second line."""
    state = StudyState(load_space("digits_w3a3"), {})
    add(state, 0, how="running")
    assert run_line(state, "trial-0000").strip().startswith("trial-0000  started")
    kept = {"epoch": 0, "position": 1, "kept_sha256": "0" * 64}
    apply(state, {"event": "kept", "at": 1.0, "key": "trial-0000", **kept})
    assert state.runs["trial-0000"].kept_position == 1
    assert run_line(state, "trial-0000") is None


def test_a_student_measured_between_reconstruction_and_training_stays_measured() -> None:
    """A run that is taken up behind that evaluation neither loses nor repeats it."""
    state = StudyState(load_space("digits_w3a3"), {})
    add(state, 0, how="running")
    run, at = state.runs["trial-0000"], {"at": 1.0, "key": "trial-0000"}
    kept = {"epoch": 0, "position": 7, "kept_sha256": "0" * 64}
    apply(state, {"event": "evaluated", **at, **kept, "metrics": {"agreement": 50.0}})
    apply(state, {"event": "started", **at, "position": 7})
    assert (run.kept_position, run.kept_sha256) == (7, "0" * 64)
    assert [entry["metrics"] for entry in run.history] == [{"agreement": 50.0}]
    assert run.metrics["agreement"] == 50.0
