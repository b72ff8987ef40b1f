"""Where a study is in MLflow: addresses of stores, of pages, and the command that shows them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from synq_tune.errors import InputError
from synq_tune.process.invocation import program
from synq_tune.redact import redact_uri
from synq_tune.study.places import absolute_uri

if TYPE_CHECKING:
    from synq_tune.tracking.tracker import Tracker

UI_ADDRESS = "http://127.0.0.1:5000"
SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "databricks")


def default_tracking_uri(study_dir: Path) -> str:
    """One SQLite file beside the study folders, so that all studies show in one UI."""
    return f"sqlite:///{study_dir.resolve().parent / 'mlflow.db'}"


def resolve_tracking_uri(uri: str) -> str:
    """Check `uri` without MLflow, and make the path of a SQLite file absolute.

    Raises:
        InputError: it names no database and no tracking server.
    """
    scheme, separator, _ = uri.partition("://")
    if scheme == "databricks" or (separator and scheme.partition("+")[0] in SCHEMES):
        return absolute_uri(uri)
    raise InputError(
        f"`the tracking URI starts with one of {', '.join(f'{s}://' for s in SCHEMES)}` must hold, "
        f"but got {redact_uri(uri)!r}. For a file on this machine use sqlite:////path/to/mlflow.db."
    )


def is_server(uri: str) -> bool:
    """Whether `uri` is a tracking server, as opposed to a database this process writes itself."""
    return uri.startswith(("http://", "https://", "databricks"))


def is_local(uri: str) -> bool:
    """Whether what is logged to `uri` stays on this machine's disk."""
    return uri.startswith(("sqlite:", "file:"))


def ui_command(uri: str) -> str:
    """The command that shows `uri` in a browser, whether or not this environment is activated.

    For a server, which needs none, its address.
    """
    shown = redact_uri(uri)
    if is_server(uri):
        return shown
    return shlex.join([*program("mlflow"), "ui", "--backend-store-uri", shown])


def study_page(tracker: Tracker) -> str:
    """Address of the table of the study's trials, best first, with accuracies and params.

    Opens once `ui_command` runs (its default host and port), or on the tracking server itself.
    """
    runs = f"{_web_address(tracker.uri)}/#/experiments/{tracker.experiment_id}/runs"
    return f"{runs}?workflowType=machine_learning&viewStateShareKey={tracker.study_id}"


def _web_address(uri: str) -> str:
    return redact_uri(uri).rstrip("/") if uri.startswith("http") else UI_ADDRESS
