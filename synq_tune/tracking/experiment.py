"""The one MLflow experiment that holds every study, and the runs in it that belong to one of
them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synq_tune.tracking.address import is_server
from synq_tune.tracking.database import sqlite_path

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "synq-tune"


def find_or_create(client: MlflowClient, uri: str, study_dir: Path) -> str:
    """Id of the experiment; a deleted one is restored."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        experiment = _create(client, _artifact_location(uri, study_dir))
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return experiment.experiment_id


def _create(client: MlflowClient, place: str | None) -> Any:
    """Of two drivers that find no experiment on a new server, only one can create it."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_experiment(EXPERIMENT, place)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return client.get_experiment_by_name(EXPERIMENT)


def _artifact_location(uri: str, study_dir: Path) -> str | None:
    """Beside the database; a server has its own. MLflow's default depends on the cwd."""
    if is_server(uri):
        return None
    beside = sqlite_path(uri) if uri.startswith("sqlite") else study_dir
    return (beside.parent / "mlartifacts").as_uri()


def runs_of(client: MlflowClient, experiment_id: str, study_id: str) -> Iterator[Any]:
    """Every run of a study, the parent too, page by page."""
    token = None
    while True:
        page = client.search_runs(
            [experiment_id],
            f"tags.`synq.study` = '{study_id}'",
            max_results=1000,
            page_token=token,
        )
        yield from page
        token = page.token
        if not token:
            return
