"""MLflow as a team runs it: a server over PostgreSQL, artifacts in S3, several drivers at once."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from mlflow import MlflowClient

from synq_tune.process.exit_codes import NOT_UPLOADED
from synq_tune.study.ledger import Ledger
from synq_tune.study.state import StudyState
from tests.crash.checker import check_finished
from tests.crash.services import (
    BUCKET,
    S3,
    MlflowServer,
    Postgres,
    need_postgres,
    need_s3,
)
from tests.crash.study import TinyStudy

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(1800)]

MODEL = "synq-tune-digits_w3a3"


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3]:
    """Not started yet."""
    need_s3()
    service = S3(tmp_path / "s3")
    yield service
    service.stop()


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Postgres]:
    need_postgres()
    service = Postgres(tmp_path / "postgres")
    service.start()
    yield service
    service.stop()


@pytest.fixture
def server(tmp_path: Path, postgres: Postgres, s3: S3) -> Iterator[MlflowServer]:
    """Drivers know only its address: it passes artifacts on to the bucket itself."""
    destination = ("--artifacts-destination", f"s3://{BUCKET}/mlflow")
    environment = {**S3.ENVIRONMENT, "MLFLOW_S3_ENDPOINT_URL": s3.url}
    service = MlflowServer(tmp_path / "server", postgres.uri, destination, environment)
    s3.start()
    service.start()
    yield service
    service.stop()


def _state(study: TinyStudy) -> StudyState:
    return Ledger.open(study.folder, read_only=True).state


def _exported(study: TinyStudy) -> str:
    return _state(study).stages.best.files["model.onnx"]


def _in_bucket(s3: S3) -> dict[str, str]:
    """SHA-256 of every model file in S3, by its key."""
    found = s3.objects().items()
    return {k: sha256(v).hexdigest() for k, v in found if k.endswith("/model.onnx")}


def test_two_studies_at_once_share_a_server(tmp_path: Path, server: MlflowServer, s3: S3) -> None:
    """Each has its own runs, once; both bests are in S3, byte for byte, and registered."""
    studies = [
        TinyStudy(
            tmp_path / name / name,
            ["study.confirm=null"],
            ("--tracking-uri", server.url, "--seed", str(seed)),
            num_trials=2,
        )
        for seed, name in enumerate(("ann", "bob"))
    ]
    drivers = [study.start() for study in studies]
    assert [driver.wait() for driver in drivers] == [0, 0], (
        drivers[0].errors() + drivers[1].errors()
    )
    client = MlflowClient(server.url, registry_uri=server.url)
    assert [e.name for e in client.search_experiments() if e.name != "Default"] == ["synq-tune"]
    for study in studies:
        verdict = check_finished(study.folder, study.finals, study.num_trials)
        assert (verdict.lost, verdict.doubled) == (0, 0)
        _check_uploaded(_state(study), client, s3)
    versions = client.search_model_versions(f"name = '{MODEL}'")
    assert len(versions) == len({_exported(study) for study in studies})
    last = max(studies, key=lambda study: _state(study).sessions[-1]["at"])
    alias = client.get_model_version_by_alias(MODEL, "best")
    assert alias.tags["synq.sha256"] == _exported(last)


def _check_uploaded(state: StudyState, client: MlflowClient, s3: S3) -> None:
    """What the ledger says was uploaded is there: as a version, and as a file."""
    exported, uploads = state.stages.best.files["model.onnx"], state.stages.uploads
    assert uploads.refused == {}
    version = client.get_model_version(*uploads.version.split("/"))
    assert version.tags["synq.sha256"] == exported
    model = uploads.model.removeprefix("models:/")
    files = {key: value for key, value in _in_bucket(s3).items() if f"/models/{model}/" in key}
    assert list(files.values()) == [exported]


def test_a_study_is_not_done_while_its_best_is_not_uploaded(
    tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bucket is away: the study says what is missing, and the next driver only uploads it.

    Here the driver writes to S3 itself, as with `--no-serve-artifacts`: the errors are boto3's.
    """
    artifacts = ("--no-serve-artifacts", "--default-artifact-root", f"s3://{BUCKET}/direct")
    for key, value in {**S3.ENVIRONMENT, "MLFLOW_S3_ENDPOINT_URL": s3.url}.items():
        monkeypatch.setenv(key, value)
    server = MlflowServer(tmp_path / "server", artifacts=artifacts)
    server.start()
    study = TinyStudy(
        tmp_path / "studies" / "tiny", ["study.confirm=null"], ("--tracking-uri", server.url), 1
    )
    client = MlflowClient(server.url, registry_uri=server.url)
    try:
        driver = study.start()
        assert driver.wait() == NOT_UPLOADED, driver.errors()
        assert "tracking: best files, best model: again in" in driver.said()
        state = _state(study)
        assert {"best files", "best model"} <= set(state.stages.uploads.refused)
        assert state.sessions[-1]["action"] == "interrupted"
        assert not client.search_registered_models()
        assert _parent_status(client, state) == "KILLED"
        before = len(study.lines)
        s3.start()
        study.finish()
        assert not any('"event":"started"' in line for line in study.lines[before:])
        verdict = check_finished(study.folder, study.finals, study.num_trials)
        assert (verdict.lost, verdict.doubled) == (0, 0)
        _check_uploaded(_state(study), client, s3)
        assert _parent_status(client, _state(study)) == "FINISHED"
        assert len(client.search_model_versions(f"name = '{MODEL}'")) == 1
        assert len(_models(client)) == 1
    finally:
        server.stop()


def _parent_status(client: MlflowClient, state: StudyState) -> str:
    places = [e.experiment_id for e in client.search_experiments()]
    kind = "tags.`synq.kind` = 'study'"
    (parent,) = client.search_runs(places, f"{kind} and tags.`synq.study` = '{state.header['id']}'")
    return parent.info.status


def _models(client: MlflowClient) -> list[str]:
    places = [e.experiment_id for e in client.search_experiments()]
    return [model.model_id for model in client.search_logged_models(places)]
