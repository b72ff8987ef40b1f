"""MLflow against the ledger: what is missing, extra, doubled or told otherwise, and made right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from synq_tune.config.load import load_space
from synq_tune.study.ledger import Ledger
from synq_tune.study.stages import Tracking, Uploads
from synq_tune.tracking import Tracker, default_tracking_uri
from synq_tune.tracking.check import mlflow_findings
from tests.helpers import tiny_onnx

FINAL, OPEN = "trial-0000", "trial-0001"


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of studies; its database is created once."""
    return tmp_path_factory.mktemp("studies")


@pytest.fixture
def ledger(studies: Path, request: pytest.FixtureRequest) -> Ledger:
    """A study with a finished and an unfinished trial, interrupted, and MLflow's copy of it."""
    folder = studies / request.node.name.replace("[", "-").strip("]").replace(" ", "-")
    ledger = Ledger.create(folder, load_space("digits_w3a3"))
    ledger.append("session", action="started", pid=1, host="here")
    ledger.record(Tracking(default_tracking_uri(folder)))
    for number, key in enumerate((FINAL, OPEN)):
        fields = {"kind": "search", "number": number, "params": {"lr": 0.01 * (1 + number)}}
        ledger.append("proposed", key=key, seed=number, label="", **fields)
        ledger.append("started", key=key)
        metrics = {"top1": 90.0 - number}
        ledger.append("evaluated", key=key, epoch=1, metrics=metrics, losses={"total": 1.0})
    ledger.append("finished", key=FINAL, state="stopped", epochs_run=1, metrics={}, seconds=1.0)
    ledger.append("session", action="interrupted", pid=1, host="here")
    tracker = Tracker.open(default_tracking_uri(folder), folder, ledger.state)
    tracker.sync(ledger.state)
    tracker.finish("KILLED")
    return ledger


def _client(ledger: Ledger) -> MlflowClient:
    uri = default_tracking_uri(ledger.folder)
    return MlflowClient(uri, registry_uri=uri)


def _tracker(ledger: Ledger) -> Tracker:
    found = Tracker.find(default_tracking_uri(ledger.folder), ledger.folder, ledger.state)
    assert found is not None
    return found


def _id(ledger: Ledger, key: str) -> str:
    return next(c["id"] for c in _tracker(ledger).children() if c["key"] == key)


def _delete(ledger: Ledger) -> None:
    _client(ledger).delete_run(_id(ledger, FINAL))


def _add(ledger: Ledger, key: str) -> None:
    tracker = _tracker(ledger)
    tags = {
        "mlflow.parentRunId": tracker.parent_id, "synq.study": tracker.study_id,
        "synq.key": key, "synq.kind": "search",
    }  # fmt: skip
    _client(ledger).create_run(tracker.experiment_id, tags=tags)


def _contradict(ledger: Ledger) -> None:
    _client(ledger).log_metric(_id(ledger, FINAL), "top1", 12.0, step=9)


def _revive(ledger: Ledger) -> None:
    _client(ledger).update_run(_id(ledger, FINAL), "RUNNING")


def _delete_parent(ledger: Ledger) -> None:
    tracker = _tracker(ledger)
    for run_id in (tracker.parent_id, *(c["id"] for c in tracker.children())):
        _client(ledger).delete_run(run_id)


FAULTS: dict[str, tuple[Callable[[Ledger], None], str]] = {
    "missing": (_delete, "MLflow has no run of trial-0000"),
    "extra": (lambda x: _add(x, "trial-0042"), "MLflow has a run of trial-0042, which the ledger"),
    "doubled": (lambda x: _add(x, FINAL), "MLflow has 2 runs of trial-0000"),
    "other number": (_contradict, "MLflow says top1=12.0 of trial-0000, which has 90.0"),
    "other state": (_revive, "MLflow says stopped (RUNNING) of trial-0000, which is stopped"),
    "no study": (_delete_parent, "does not have the study"),
}


def test_a_true_copy_has_no_findings(ledger: Ledger) -> None:
    """What the driver wrote is what the ledger says."""
    assert mlflow_findings(ledger) == []


@pytest.mark.parametrize("name", FAULTS)
def test_a_disagreement_is_told_and_mended(ledger: Ledger, name: str) -> None:
    """One sentence names the run; afterwards MLflow has each run of the ledger once, as it is."""
    break_it, text = FAULTS[name]
    break_it(ledger)
    found = mlflow_findings(ledger)
    assert any(text in finding.text for finding in found), found
    for finding in found:
        finding.mend()
    assert mlflow_findings(ledger) == []
    children = {c["key"]: c for c in _tracker(ledger).children()}
    assert set(children) == {FINAL, OPEN}
    assert children[FINAL]["metrics"]["top1"] == 90.0


def _registered(ledger: Ledger) -> dict[str, str]:
    """Log a model of the study as its best, as a driver does; {model, version}."""
    image = np.zeros((1, 1, 8, 8), np.float32)
    tracker = Tracker.open(default_tracking_uri(ledger.folder), ledger.folder, ledger.state)
    model = tracker.log_best_model(tiny_onnx(), image)
    version = tracker.register_best(model, f"of-{ledger.folder.name}", {})
    ledger.record(Uploads(model, version))
    return {"model": model, "version": version}


@pytest.mark.parametrize("what", ["model", "version"])
def test_a_deleted_model_is_told_and_uploaded_again(ledger: Ledger, what: str) -> None:
    """Mended, the study has one thing left to do, for which the line to type is given."""
    names = _registered(ledger)
    assert mlflow_findings(ledger) == []
    if what == "model":
        _client(ledger).delete_logged_model(names["model"].removeprefix("models:/"))
    else:
        _client(ledger).delete_model_version(*names["version"].rsplit("/", 1))
    (finding,) = mlflow_findings(ledger)
    assert finding.text == f"MLflow no longer has the model {names['version']}"
    finding.mend()
    (left,) = mlflow_findings(ledger)
    assert left.mend is None and f"--resume {ledger.folder}" in left.text
    _registered(ledger)
    assert mlflow_findings(ledger) == []


def test_looking_creates_nothing(tmp_path: Path) -> None:
    """A lost database is told, not made."""
    ledger = Ledger.create(tmp_path / "study", load_space("digits_w3a3"))
    uri = default_tracking_uri(ledger.folder)
    ledger.record(Tracking(uri))
    (finding,) = mlflow_findings(ledger)
    assert "does not have the study" in finding.text
    assert not (tmp_path / "mlflow.db").exists()


def test_a_store_that_does_not_answer_is_left(ledger: Ledger, monkeypatch) -> None:
    """The finding says that nothing of MLflow was checked; there is nothing to mend it with."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (finding,) = mlflow_findings(ledger, "http://127.0.0.1:9")
    assert finding.mend is None and "Nothing of it is checked" in finding.text
