"""Training states of unfinished runs, kept by the driver beside the ledger."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from synq_tune import store
from synq_tune.finetune import training_state
from synq_tune.study.files import state_path
from synq_tune.study.state import Run


def keep_state(folder: Path, key: str, epoch: int, data: bytes, position: int = 0) -> str | None:
    """Write a run's state after `epoch` epochs; returns its SHA-256, None if it could not be kept.

    The state before it stays until `files.prune`: the ledger does not name the new one yet.
    """
    try:
        store.write_bytes(state_path(folder, key, epoch, position), data)
    except OSError as error:
        # The run goes on: it would only have further to go again after a crash.
        print(f"{key}: its state after epoch {epoch} is not kept: {error}", file=sys.stderr)
        return None
    return hashlib.sha256(data).hexdigest()


def load_state(folder: Path, run: Run) -> bytes | None:
    """The state an unfinished run goes on from; None where it begins.

    A missing or damaged file costs time, not the result: it is said, and the run begins again.
    """
    if run.kept_sha256 is None:
        return None
    problem, data = None, b""
    try:
        data = state_path(folder, run.key, run.kept_epoch, run.kept_position).read_bytes()
        training_state.about(data)
        if hashlib.sha256(data).hexdigest() != run.kept_sha256:
            problem = "it is damaged"
    except (OSError, ValueError) as error:
        problem = str(error)
    if problem is None:
        return data
    print(
        f"{run.key}: its state after epoch {run.kept_epoch} cannot be used ({problem}); "
        "it starts again",
        file=sys.stderr,
    )
    return None
