"""Exported files of a study, from MLflow back to this machine."""

from __future__ import annotations

from pathlib import Path

from synq_tune.errors import InputError, in_stage, lookup
from synq_tune.redact import redact_uri
from synq_tune.tracking.address import resolve_tracking_uri
from synq_tune.tracking.guard import prepare_mlflow, tracking_errors


@in_stage("asking the tracking store", lambda uri: f"--tracking-uri {redact_uri(uri)}")
def download_exported(uri: str, run_id: str, format_: str, folder: Path) -> Path:
    """Fetch the exported model file of a study from MLflow.

    Args:
        uri: tracking store.
        run_id: the study's run, or one of its trials'.
        format_: key of `EXPORTERS`.
        folder: gets the file.

    Raises:
        InputError: `uri` is not one, or the run has no exported model.
        TrackingError: MLflow cannot be reached or used.
    """
    from synq_tune.export import FILE_NAMES

    uri = resolve_tracking_uri(uri)
    name = FILE_NAMES[lookup("format", format_, FILE_NAMES)]
    prepare_mlflow()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    client = MlflowClient(uri, registry_uri=uri)
    try:
        tags = client.get_run(run_id).data.tags
        study = tags.get("mlflow.parentRunId", run_id)
        # Not the client's own listing, which asks the global store for the study's logged model.
        place = client.get_run(study).info.artifact_uri
        artifacts = get_artifact_repository(place, tracking_uri=uri, registry_uri=uri)
        known = {file.path for file in artifacts.list_artifacts("best")}
    except MlflowException as error:
        raise InputError(
            f"`the run exists` must hold, but got run={run_id!r} in {redact_uri(uri)}: "
            f"{redact_uri(str(error))}."
        ) from None
    if f"best/{name}" not in known:
        raise InputError(
            f"`the run's study has an exported {name}` must hold, but run {run_id!r} has none."
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tracking_errors(uri):
        return Path(artifacts.download_artifacts(f"best/{name}", str(folder)))
