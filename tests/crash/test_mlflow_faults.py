"""MLflow's store is locked, or its server goes away: the study does not stop, and nothing is missing."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from synq_tune.process.exit_codes import NOT_UPLOADED
from synq_tune.study.ledger import Ledger
from synq_tune.study.status import format_status
from synq_tune.tracking.check import mlflow_findings
from tests.crash.conftest import FaultTable
from tests.crash.services import MlflowServer
from tests.crash.study import TinyStudy

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(3600)]


def test_the_database_is_locked_for_a_minute(study: TinyStudy, table: FaultTable) -> None:
    """Other programs use the file, too; what could not be written is made up for."""
    driver = study.start()
    driver.until_event("evaluated")
    path = study.folder.parent / "mlflow.db"
    with contextlib.closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        time.sleep(60)
        other.execute("ROLLBACK")
    assert driver.wait() == 0, driver.errors()
    table.check("MLflow's database locked for a minute", study)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path / "server")
    server.start()
    yield server
    server.stop()


def test_the_server_goes_away_and_comes_back(
    study: TinyStudy, server: MlflowServer, table: FaultTable
) -> None:
    """The study goes on without it; when it is back, it gets what it missed."""
    study.arguments = ("--tracking-uri", server.url)
    driver = study.start()
    driver.until_event("evaluated")
    server.stop()
    driver.until_event("finished", 2)
    server.start()
    assert driver.wait() == 0, driver.errors()
    assert "The study goes on" in driver.said()
    table.check("a tracking server that goes away and comes back", study)


def test_the_server_refuses_uploads(
    small: TinyStudy, server: MlflowServer, table: FaultTable
) -> None:
    """Its disk is away: the study is not done before the best is uploaded, once."""
    place = server.folder / "artifacts"
    shutil.rmtree(place, ignore_errors=True)
    place.write_text("no folder")
    small.arguments = ("--tracking-uri", server.url)
    driver = small.start()
    assert driver.wait() == NOT_UPLOADED, driver.errors()
    assert "tracking: best files, best model: again in 2 s" in driver.said()
    ledger = Ledger.open(small.folder, read_only=True)
    assert {"best files", "best model"} == set(ledger.state.stages.uploads.refused)
    assert "not uploaded: best model:" in format_status(ledger.state, small.folder)
    assert any("has not taken" in f.text for f in mlflow_findings(ledger))
    before = len(small.lines)
    place.unlink()
    small.finish()
    assert not any('"event":"started"' in line for line in small.lines[before:])
    state = Ledger.open(small.folder, read_only=True).state
    client = MlflowClient(server.url, registry_uri=server.url)
    version = client.get_model_version_by_alias("synq-tune-digits_w3a3", "best")
    assert f"{version.name}/{version.version}" == state.stages.uploads.version
    assert version.tags["synq.sha256"] == state.stages.best.files["model.onnx"]
    places = [e.experiment_id for e in client.search_experiments()]
    (model,) = client.search_logged_models(places)
    assert str(model.status) == "READY"
    table.check("a tracking server that refuses uploads", small)
