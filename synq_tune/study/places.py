"""Where a study's other files are: the store of datasets, and MLflow's database.

The stage `places` of the ledger says what its drivers were told. The default tracking store is
beside the study and moves with it. Ledgers from before that stage have a dataset and an address of
MLflow to go by.
"""

from __future__ import annotations

import os
from pathlib import Path

from synq_tune.redact import redact_uri
from synq_tune.store import store_folder
from synq_tune.study.ledger import Ledger
from synq_tune.study.stages import Places
from synq_tune.study.state import StudyState

_DEFAULT_NAME = "mlflow.db"


def store_of(state: StudyState) -> Path | None:
    """The store that the study's last driver used; None if it never got that far."""
    if state.stages.places is not None:
        return Path(state.stages.places.store)
    dataset = state.stages.dataset
    return Path(dataset.path).parents[1] if dataset else None


def tracking_of(state: StudyState, folder: Path) -> str | None:
    """The tracking store that was asked for, without credentials; None for the default one."""
    if state.stages.places is not None:
        return state.stages.places.tracking_uri
    tracking = state.stages.tracking
    return None if tracking is None or _is_default(tracking.uri, folder) else tracking.uri


def _is_default(uri: str, folder: Path) -> bool:
    """Whether it is the file beside the study, or was so before the study was moved."""
    path = _sqlite_path(uri)
    if path is None or path.name != _DEFAULT_NAME:
        return False
    return path.parent == folder.resolve().parent or not path.exists()


def remember_places(ledger: Ledger, store: str | None, tracking_uri: str | None) -> Path:
    """Record what a driver was told, where it differs from what was recorded; returns the store.

    Args:
        ledger: under the study's lock.
        store: as given; None is what the study used before, or the default.
        tracking_uri: likewise.

    Raises:
        InputError: the store is in a home that is not there.
    """
    state = ledger.state
    folder = (None if store else store_of(state)) or store_folder(store)
    given = absolute_uri(tracking_uri) if tracking_uri else tracking_of(state, ledger.folder)
    places = Places(str(folder), redact_uri(given) if given else None)
    if not state.stages.says(places):
        ledger.record(places)
    return folder


def place_options(store: str | None = None, tracking_uri: str | None = None) -> list[str]:
    """`--store` and `--tracking-uri` for a printed command, as they were given to this one.

    Absolute, since the next command may run in another folder; a password is left for the user to
    fill in.
    """
    told = ["--store", os.path.abspath(os.path.expanduser(store))] if store else []
    if not tracking_uri:
        return told
    shown = redact_uri(absolute_uri(tracking_uri))
    if redact_uri(tracking_uri) != tracking_uri and "://" in shown and "***" not in shown:
        shown = shown.replace("://", "://USER:PASSWORD@", 1)
    return [*told, "--tracking-uri", shown]


def absolute_uri(uri: str) -> str:
    """`uri`, with the path of a SQLite file made absolute."""
    scheme, separator, rest = uri.partition("://")
    if not separator or not scheme.startswith("sqlite") or rest.startswith("//"):
        return uri
    return f"{scheme}:///{Path(rest.lstrip('/')).absolute()}"


def tracking_path(state: StudyState, folder: Path) -> Path | None:
    """The file of the study's tracking store; None where that is no file of this machine."""
    uri = tracking_of(state, folder)
    return folder.resolve().parent / _DEFAULT_NAME if uri is None else _sqlite_path(uri)


def _sqlite_path(uri: str) -> Path | None:
    scheme, _, rest = uri.partition(":///")
    return Path(rest.partition("?")[0]) if scheme.startswith("sqlite") else None
