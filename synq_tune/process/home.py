"""A home folder for libraries that write into one, where the user's cannot be written."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

_lent: Path | None = None
_scratch: Path | None = None


def can_write(folder: Path) -> str | None:
    """Why no file can be made in a folder; None if one can. Leaves nothing behind.

    The right to write says too little: root has it on a read-only disk, everybody on a full one.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 16))
            file.flush()
    except OSError as error:
        return error.strerror or str(error)
    return None


def is_lent() -> bool:
    """Whether `~` is a folder that is gone when this process ends."""
    return _lent is not None


def lend_home() -> None:
    """Point libraries elsewhere (Matplotlib, MLflow, torch) where HOME is missing or cannot be
    written.

    A home that can be read stays: it may hold what the user has there, such as passwords of
    servers.
    """
    global _lent, _scratch
    home = _home()
    if _lent is not None or (home is not None and can_write(home) is None):
        return
    try:
        scratch = Path(tempfile.mkdtemp(prefix="synq_tune_home_"))
    except OSError:
        return  # who needs temporary files says so
    _scratch = scratch
    atexit.register(take_home_back)
    os.environ.setdefault("MPLCONFIGDIR", str(scratch))
    if home is None or not home.is_dir() or not os.access(home, os.R_OK | os.X_OK):
        _lent = scratch
        os.environ["HOME"] = str(scratch)


def take_home_back() -> None:
    """Delete what was lent: the process ends."""
    if _scratch is not None:
        shutil.rmtree(_scratch, ignore_errors=True)


def _home() -> Path | None:
    if not os.environ.get("HOME"):  # an empty one would be the current folder
        os.environ.pop("HOME", None)
    try:
        return Path.home()
    except RuntimeError:  # HOME is not set, and the user is in no list of users
        return None
