"""MLflow is written to by a thread of its own: nothing waits, nothing is lost."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from synq_tune.config.load import load_space
from synq_tune.process.signals import Interrupts
from synq_tune.search.driver import Options, StudyDriver
from synq_tune.study.ledger import Ledger
from synq_tune.study.stages import Best, Ladder, Teacher, Uploads
from synq_tune.study.state import StudyState
from synq_tune.tracking import TrackingError
from synq_tune.tracking import writer as tracked
from synq_tune.tracking.guard import tracking_errors
from synq_tune.tracking.writer import TrackedStudy
from tests.helpers import tiny_onnx


class SlowTracker:
    """A store that takes its time and may be away; remembers what it was given."""

    def __init__(self) -> None:
        self.may_go = threading.Event()
        self.is_writing = threading.Event()
        self.error: Exception | None = None
        self.writes: list[dict[str, str]] = []
        self.ended: list[str] = []

    def sync(self, state: StudyState) -> None:
        self.is_writing.set()
        assert self.may_go.wait(10)
        if self.error is not None:
            raise self.error
        self.writes.append({run.key: run.state for run in state.runs.values()})

    def finish(self, status: str) -> None:
        self.ended.append(status)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger.create(tmp_path / "study", load_space("digits_w3a3"))
    for number in range(3):
        key = f"trial-{number:04d}"
        event: dict[str, Any] = {"key": key, "kind": "search", "number": number, "seed": 0}
        ledger.append("proposed", **event, params={"lr": number}, label="")
        ledger.append("started", key=key)
    return ledger


def _finish(ledger: Ledger, key: str) -> None:
    ledger.append("finished", key=key, state="failed", metrics={}, epochs_run=0, seconds=1.0)


def test_the_driver_does_not_wait_and_changes_are_written_together(ledger: Ledger) -> None:
    """While one write is on its way, later changes wait for the next, as one."""
    tracker = SlowTracker()
    study = TrackedStudy(tracker)
    study.sync(ledger.state, "trial-0000")
    assert tracker.is_writing.wait(10)
    for key in ("trial-0001", "trial-0002"):
        _finish(ledger, key)
        study.sync(ledger.state, key)
    tracker.may_go.set()
    study.finish("FINISHED")
    assert tracker.writes == [
        {"trial-0000": "running"},
        {"trial-0001": "failed", "trial-0002": "failed"},
    ]
    assert tracker.ended == ["FINISHED"]


def test_what_is_written_is_what_was_when_it_was_asked_for(ledger: Ledger) -> None:
    """The driver goes on changing its state; the writer has a copy."""
    tracker = SlowTracker()
    study = TrackedStudy(tracker)
    study.sync(ledger.state, "trial-0000")
    assert tracker.is_writing.wait(10)
    _finish(ledger, "trial-0000")
    tracker.may_go.set()
    study.finish("KILLED")
    assert tracker.writes == [{"trial-0000": "running"}]


def test_an_outage_is_made_up_for(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """What a store did not take is written with the next change."""
    tracker = SlowTracker()
    tracker.may_go.set()
    tracker.error = TrackingError("MLflow is away.")
    study = TrackedStudy(tracker)
    _finish(ledger, "trial-0000")
    study.sync(ledger.state, "trial-0000")
    study._do(lambda: None)
    assert capsys.readouterr().err == "tracking: MLflow is away. The study goes on.\n"
    tracker.error = None
    study.sync(ledger.state, "trial-0001")
    study.finish("FINISHED")
    assert tracker.writes == [{"trial-0000": "failed", "trial-0001": "running"}]


def test_a_signal_before_the_store_is_open_shows_nothing(ledger: Ledger, tmp_path: Path) -> None:
    """Ctrl+C within the driver's first second ends it in order: there is nothing to tell MLflow."""
    driver = StudyDriver(ledger, Options(ledger.folder, tmp_path / "store"), Interrupts())
    driver.show_interrupted()
    assert not (ledger.folder.parent / "mlflow.db").exists()


def test_a_defect_of_ours_is_not_lost_in_the_thread(ledger: Ledger) -> None:
    """Only what MLflow raises is survived; anything else reaches the driver."""
    tracker = SlowTracker()
    tracker.may_go.set()
    tracker.error = KeyError("a defect")
    study = TrackedStudy(tracker)
    study.sync(ledger.state, "trial-0000")
    with pytest.raises(KeyError, match="a defect"):
        study.finish("FINISHED")


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """A study whose best is exported; what is refused is tried twice more, at once."""
    monkeypatch.setattr(tracked, "RETRY_AFTER", (0.0, 0.0))
    ledger = Ledger.create(tmp_path / "study", load_space("digits_w3a3"))
    ledger.record(Teacher("net", "ab"))
    ledger.record(Ladder(()))
    metrics = {"top1": 98.4375, "agreement": 93.0}
    ledger.record(Best("trial-0001", 1, {}, metrics, "/study/best", files={}))
    (tmp_path / "study" / "best").mkdir()
    onnx.save(tiny_onnx(), tmp_path / "study" / "best" / "model.onnx")
    return ledger


def _upload(ledger: Ledger) -> Uploads:
    study = TrackedStudy.open(ledger, None, ledger.folder)
    return study.log_best(ledger.folder / "best", ledger.state, np.ones((1, 1, 2, 2), np.float32))


def _refuse(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """The store takes no model folder, so many times."""
    upload, left = MlflowClient.log_model_artifacts, iter(range(times))

    def log_model_artifacts(self: MlflowClient, *arguments: Any) -> None:
        if next(left, None) is not None:
            raise MlflowException("the bucket is away")
        upload(self, *arguments)

    monkeypatch.setattr(MlflowClient, "log_model_artifacts", log_model_artifacts)


def test_a_refused_upload_is_tried_again(
    finished: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The driver waits for a store that comes back; then nothing is missing."""
    _refuse(monkeypatch, 2)
    uploads = _upload(finished)
    assert (uploads.version, uploads.refused) == ("synq-tune-digits_w3a3/1", {})
    assert capsys.readouterr().err.count("tracking: best model: again in") == 2


def test_what_is_refused_for_good_is_told_by_name(
    finished: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer says what is not uploaded and why; the next driver's upload makes up for it."""
    _refuse(monkeypatch, 3)
    uploads = _upload(finished)
    assert uploads.version is None
    assert list(uploads.refused) == ["best model"]
    assert "the bucket is away" in uploads.refused["best model"]
    again = _upload(finished)
    assert (again.version, again.refused) == ("synq-tune-digits_w3a3/1", {})


def test_errors_of_a_client_for_artifacts_are_outages() -> None:
    """boto3's exceptions are none of MLflow's; they do not end a study."""
    kind = type("EndpointConnectionError", (Exception,), {"__module__": "botocore.exceptions"})
    with pytest.raises(TrackingError, match="could not connect"), tracking_errors("sqlite:///x"):
        raise kind("could not connect")


def test_that_images_may_be_sent_is_asked_once(ledger: Ledger, tmp_path: Path) -> None:
    """The driver is told, and a later driver of the study goes on doing so."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    for asked, sends in ((False, False), (True, True), (False, True)):
        study = TrackedStudy.open(ledger, uri, ledger.folder, upload_images=asked)
        assert study.tracker.upload_images is sends
