"""Where a study keeps the tensors of its runs, and which of them it still needs."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from synq_tune.study.state import StudyState
from synq_tune.study.summary import finalists

CHECKPOINTS, RUNNING = "checkpoints", "running"
_STATE_NAME = re.compile(r"(?P<key>.+)\.epoch-(?P<epoch>\d+)(\.part-\d+)?\.safetensors")


def checkpoint_path(folder: Path, key: str) -> Path:
    """Where the student of a finished run is kept."""
    return folder / CHECKPOINTS / f"{key}.safetensors"


def state_path(folder: Path, key: str, epoch: int, position: int = 0) -> Path:
    """Where the state of an unfinished run is kept: after `epoch` epochs, or parts of a stage
    before."""
    part = f".part-{position}" if position else ""
    return folder / CHECKPOINTS / RUNNING / f"{key}.epoch-{epoch}{part}.safetensors"


def state_files(folder: Path) -> dict[Path, tuple[str, int]]:
    """Key and epoch of every training state there is, by its path."""
    places = (folder / CHECKPOINTS / RUNNING).glob("*.safetensors")
    named = ((path, _STATE_NAME.fullmatch(path.name)) for path in places)
    return {path: (m["key"], int(m["epoch"])) for path, m in named if m}


def needed_files(folder: Path, state: StudyState) -> dict[Path, str]:
    """SHA-256 of each file worth keeping, by its path.

    The best `keep_checkpoints` students, every one `confirm` may still choose, and of each
    unfinished run the training state that the ledger names.
    """
    study = state.spec.study
    count = max(study.keep_checkpoints, study.confirm.top if study.confirm else 1)
    students = {
        checkpoint_path(folder, run.key): run.checkpoint_sha256 for run in finalists(state, count)
    }
    states = {
        state_path(folder, run.key, run.kept_epoch, run.kept_position): run.kept_sha256
        for run in state.tally.unfinished.values()
    }
    return {path: sha256 for path, sha256 in {**students, **states}.items() if sha256}


def surplus_files(folder: Path, state: StudyState) -> list[Path]:
    """Students and training states that nobody needs any more, and those of no known run."""
    students = (folder / CHECKPOINTS).glob("*.safetensors")
    return sorted({*students, *state_files(folder)} - needed_files(folder, state).keys())


def prune(folder: Path, state: StudyState) -> None:
    """Delete `surplus_files`; a student is written just before its run is final in `state`."""
    for path in surplus_files(folder, state):
        path.unlink(missing_ok=True)


def leftovers(folder: Path) -> list[Path]:
    """Half-written files of processes that were killed; only for who knows that none is at work."""
    return sorted(path for path in folder.rglob(".*.tmp") if path.is_file())


def ray_prefix(state: StudyState) -> str:
    """How the names of the folders begin that Ray gets for this study, and may lose at any time."""
    return f"synq_tune_ray_{state.header.get('id', 'none')[:12]}_"


def ray_folders(state: StudyState) -> list[Path]:
    """Those folders on this machine."""
    return sorted(Path(tempfile.gettempdir()).glob(f"{ray_prefix(state)}*"))


def place_prefix(state: StudyState) -> str:
    """How the name of Ray's own folder begins, for its sockets and logs: short, as sockets' paths
    are."""
    return f"sqt_{state.header.get('id', 'none')[:8]}_"


def ray_roots() -> list[Path]:
    """Folders in which Ray may live on this machine, the likeliest first."""
    others = ("/tmp", "/var/tmp", "/dev/shm", f"/run/user/{os.getuid()}")
    return [Path(root) for root in dict.fromkeys([tempfile.gettempdir(), *others])]


def ray_places(state: StudyState) -> list[Path]:
    """What Ray left of a driver of this study that was killed; only for who knows that none is at
    work."""
    name = f"{place_prefix(state)}*"
    return sorted(path for root in ray_roots() for path in root.glob(name))
