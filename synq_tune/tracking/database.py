"""A SQLite store is created once, whole, by one process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from synq_tune.store import atomic_path, file_lock


def sqlite_path(uri: str) -> Path:
    """The file of a `sqlite:///` address."""
    return Path(uri.partition(":///")[2].partition("?")[0])


@contextlib.contextmanager
def first_use_lock(uri: str) -> Iterator[None]:
    """One process at a time creates a database: MLflow's migrations cannot run side by side."""
    if not uri.startswith("sqlite"):
        yield
        return
    path = sqlite_path(uri)
    with file_lock(path.with_name(path.name + ".lock")):
        yield


def make_database(uri: str) -> None:
    """Make a new SQLite file aside, then rename it: MLflow cannot go on from half a migration."""
    from mlflow import MlflowClient

    if not uri.startswith("sqlite") or sqlite_path(uri).exists():
        return
    with atomic_path(sqlite_path(uri)) as temporary:
        uri = f"sqlite:///{temporary}"
        MlflowClient(uri, registry_uri=uri).search_experiments()
