"""Where a study's folder keeps the tensors of its runs."""

from __future__ import annotations

import re
from pathlib import Path

CHECKPOINTS, RUNNING = "checkpoints", "running"
_STATE_NAME = re.compile(r"(?P<key>.+)\.epoch-(?P<epoch>\d+)\.safetensors")


def checkpoint_path(folder: Path, key: str) -> Path:
    """Where the student of a finished run is kept."""
    return folder / CHECKPOINTS / f"{key}.safetensors"


def state_path(folder: Path, key: str, epoch: int) -> Path:
    """Where the training state of an unfinished run is kept, after `epoch` epochs."""
    return folder / CHECKPOINTS / RUNNING / f"{key}.epoch-{epoch}.safetensors"


def state_files(folder: Path) -> dict[Path, tuple[str, int]]:
    """Key and epoch of every training state there is, by its path."""
    places = (folder / CHECKPOINTS / RUNNING).glob("*.safetensors")
    named = ((path, _STATE_NAME.fullmatch(path.name)) for path in places)
    return {path: (m["key"], int(m["epoch"])) for path, m in named if m}
