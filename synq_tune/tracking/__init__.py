"""A study in MLflow: one parent run, and one child run per run of the ledger.

MLflow is a projection. The driver process alone writes it, in batches, from the ledger's state;
what MLflow already holds is read back when a study is opened again, so nothing is logged twice, and
a lost store can be filled again from the ledger. No telemetry, no pickle, no fluent (global) run.
"""

from synq_tune.tracking.address import (
    default_tracking_uri,
    is_local,
    is_server,
    resolve_tracking_uri,
    study_page,
    ui_command,
)
from synq_tune.tracking.describe import study_params, study_tags
from synq_tune.tracking.download import download_exported
from synq_tune.tracking.experiment import EXPERIMENT
from synq_tune.tracking.guard import TrackingError
from synq_tune.tracking.records import STATUSES
from synq_tune.tracking.tracker import Tracker

__all__ = [
    "EXPERIMENT",
    "STATUSES",
    "Tracker",
    "TrackingError",
    "default_tracking_uri",
    "download_exported",
    "is_local",
    "is_server",
    "resolve_tracking_uri",
    "study_page",
    "study_params",
    "study_tags",
    "ui_command",
]
