"""Every failure of MLflow as one error; its environment: no telemetry, no pickle, short waits."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

from synq_tune.errors import ServiceError
from synq_tune.redact import redact_uri

_FORCED_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    # MLflow loads onnxruntime.
    "ORT_DISABLE_TELEMETRY": "1",
    # It would print the address of a run, credentials included.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_DEFAULT_ENVIRONMENT = {
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # MLflow's own (7 retries, 120 s each) would hold the driver for minutes when a server is down.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


_LIBRARIES = (
    "mlflow",
    "sqlalchemy",
    "boto3",
    "botocore",
    "s3transfer",
    "azure",
    "google",
    "urllib3",
)
"""Packages whose errors mean that a store or an artifact place failed. Not all are installed, so
they are known by name."""


class TrackingError(ServiceError):
    """MLflow could not be read or written; the ledger is whole and the study can go on."""


@contextlib.contextmanager
def tracking_errors(uri: str) -> Iterator[None]:
    """Turn every failure of MLflow's store, network or files into a TrackingError."""
    prepare_mlflow()
    try:
        yield
    except Exception as error:
        if not _is_of_store(error):
            raise
        reason = redact_uri(" ".join(str(error).split()))
        # Not chained: the original message quotes the address with its credentials.
        raise TrackingError(f"MLflow at {redact_uri(uri)}: {reason}") from None


def _is_of_store(error: Exception) -> bool:
    if isinstance(error, (OSError, ImportError)):
        return True
    return any(kind.__module__.partition(".")[0] in _LIBRARIES for kind in type(error).__mro__)


def prepare_mlflow() -> None:
    """Set what MLflow reads while it is imported, and silence its first use of a database."""
    os.environ.update(_FORCED_ENVIRONMENT)
    for key, value in _DEFAULT_ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
