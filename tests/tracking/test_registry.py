"""Best students become versions of their space's registered model, once each, behind an alias."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from synq_tune.config.load import load_space
from synq_tune.study.state import StudyState
from synq_tune.tracking import Tracker, TrackingError, default_tracking_uri
from synq_tune.tracking.registry import ALIAS
from tests.helpers import tiny_onnx

IMAGE = np.ones((1, 1, 2, 2), np.float32)
TAGS = {"metric": "top1", "top1": "98.4375"}


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of studies; its database is created once."""
    return tmp_path_factory.mktemp("studies")


@pytest.fixture
def client(studies: Path) -> MlflowClient:
    """Of the store that the studies share."""
    uri = default_tracking_uri(studies / "any")
    return MlflowClient(uri, registry_uri=uri)


@pytest.fixture
def register(studies: Path, request: pytest.FixtureRequest) -> Callable[..., str | None]:
    """Log and register a study's best, as its driver does; the space is named after the test."""
    space = request.node.originalname.removeprefix("test_")

    def as_its_driver(study: str, scale: float) -> str | None:
        folder = studies / f"{space}-{study}"
        state = StudyState(load_space("digits_w3a3"), {"id": folder.name})
        tracker = Tracker.open(default_tracking_uri(folder), folder, state)
        return tracker.register_best(tracker.log_best_model(tiny_onnx(scale), IMAGE), space, TAGS)

    return as_its_driver


def versions(client: MlflowClient, name: str) -> list[Any]:
    return list(client.search_model_versions(f"name = '{name}'"))


def aliased(client: MlflowClient, name: str) -> str:
    return str(client.get_model_version_by_alias(name, ALIAS).version)


def test_a_version_says_where_it_is_from(register, client) -> None:
    """Its tags carry the study, the file's SHA-256, the metric and the accuracy; its run is the study's."""
    name, _, number = register("a", 1.0).rpartition("/")
    version = client.get_model_version(name, number)
    assert name == "synq-tune-a_version_says_where_it_is_from"
    assert {
        **TAGS,
        "synq.study": "a_version_says_where_it_is_from-a",
    }.items() <= version.tags.items()
    assert len(version.tags["synq.sha256"]) == 64
    parent = client.get_run(version.run_id)
    assert parent.data.tags["synq.study"] == version.tags["synq.study"]
    (output,) = parent.outputs.model_outputs
    assert f"/{output.model_id}/" in version.source


def test_a_version_serves_without_pickle(register, studies, monkeypatch) -> None:
    """`models:/NAME@best` loads by itself in a process that forbids pickle, and predicts."""
    import mlflow

    name = register("a", 2.0).partition("/")[0]
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", default_tracking_uri(studies / "any"))
    logits = mlflow.pyfunc.load_model(f"models:/{name}@{ALIAS}").predict(IMAGE)["logits"]
    assert logits.tolist() == [[36.0, 44.0, 52.0]]


def test_the_same_file_is_one_version(register, client) -> None:
    """A study that is resumed, and another one with the same result, register nothing new."""
    first = register("a", 1.0)
    assert register("a", 1.0) == first
    assert register("b", 1.0) == first
    assert len(versions(client, first.partition("/")[0])) == 1


def test_the_alias_names_the_study_that_finished_last(register, client) -> None:
    """A new best moves it, and a repeat of an earlier one moves it back; no version is lost."""
    name, _, old = register("a", 1.0).rpartition("/")
    new = register("b", 2.0).rpartition("/")[2]
    assert (aliased(client, name), old) == (new, "1")
    register("c", 1.0)
    assert aliased(client, name) == old
    assert len(versions(client, name)) == 2


def test_an_alias_of_other_people_stays(register, client) -> None:
    """Only `best` is ours: what is in production is not decided here."""
    name = register("a", 1.0).partition("/")[0]
    client.set_registered_model_alias(name, "champion", "1")
    register("b", 2.0)
    assert str(client.get_model_version_by_alias(name, "champion").version) == "1"


def test_an_upload_that_broke_off_is_gone_on_with(register, client, monkeypatch) -> None:
    """The next attempt uses the model that was begun: none is left half there or doubled."""
    upload = MlflowClient.log_model_artifacts

    def refuse(self, *arguments, **keywords):
        raise MlflowException("no space in the bucket")

    monkeypatch.setattr(MlflowClient, "log_model_artifacts", refuse)
    with pytest.raises(TrackingError, match="no space in the bucket"):
        register("a", 1.0)
    monkeypatch.setattr(MlflowClient, "log_model_artifacts", upload)
    version = register("a", 1.0)
    run_id = client.get_model_version(*version.split("/")).run_id
    (experiment,) = {r.experiment_id for r in [client.get_run(run_id).info]}
    models = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    assert [str(model.status) for model in models] == ["READY"]
    assert len(client.get_run(run_id).outputs.model_outputs) == 1


@pytest.mark.parametrize("code", ["FEATURE_DISABLED", "ENDPOINT_NOT_FOUND", "PERMISSION_DENIED"])
def test_a_store_without_a_registry_is_no_failure(register, monkeypatch, code) -> None:
    """The model is logged all the same; there is no version to name."""
    from mlflow.protos.databricks_pb2 import ErrorCode

    def without(self, *arguments, **keywords):
        raise MlflowException("no registry here", error_code=ErrorCode.Value(code))

    monkeypatch.setattr(MlflowClient, "search_model_versions", without)
    assert register("a", 1.0) is None


def test_a_registry_that_is_away_is_an_outage(register, monkeypatch) -> None:
    """It is told as one, so that it is tried again."""

    def away(self, *arguments, **keywords):
        raise MlflowException("connection reset")

    monkeypatch.setattr(MlflowClient, "search_model_versions", away)
    with pytest.raises(TrackingError, match="connection reset"):
        register("a", 1.0)
