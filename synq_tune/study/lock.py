"""One driver per study: a lock on its folder that dies with its holder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from synq_tune.errors import InputError

LOCK_NAME = "lock"
_ATTEMPTS, _PAUSE = 10, 0.05

_held: set[int] = set()


def _forget_in_child() -> None:
    """A forked child shares its parent's lock, and would keep it alive after the parent's death."""
    for file in _held:
        os.close(file)
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)


@dataclass(frozen=True)
class Holder:
    """Who holds a study's lock, as written in its file."""

    pid: int
    host: str
    boot_id: str
    since: float
    """Seconds since the epoch."""
    seen: float
    """Last sign of life, in seconds since the epoch."""


class StudyLock:
    """A lock that is held."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._since = time.time()
        self.refresh()

    def refresh(self) -> None:
        """Write a sign of life for people who look; the lock itself needs none."""
        mine = Holder(os.getpid(), socket.gethostname(), boot_id(), self._since, time.time())
        text = json.dumps(asdict(mine)).encode() + b"\n"
        os.pwrite(self._file, text, 0)
        os.ftruncate(self._file, len(text))


@contextlib.contextmanager
def study_lock(folder: Path) -> Iterator[StudyLock]:
    """Be the only driver of the study in `folder`, which is made if missing.

    Raises:
        InputError: another process drives it; the message names process and host.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    _held.add(file)
    try:
        _acquire(file, folder)
        yield StudyLock(file)
    finally:
        if file in _held:
            _held.discard(file)
            os.close(file)


def _acquire(file: int, folder: Path) -> None:
    for _ in range(_ATTEMPTS):
        if _try(file, fcntl.LOCK_EX):
            return
        # Someone who only looks (`holder`) has it for an instant.
        time.sleep(_PAUSE)
    found = _content(file)
    who = f"process {found.pid} on {found.host}" if found else "another process"
    raise InputError(
        f"`one driver per study` must hold, but {folder} is being driven by {who}. Wait for it, or "
        "stop it with Ctrl+C and run the same command again."
    )


def _try(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def holder(folder: Path) -> Holder | None:
    """Who drives the study in `folder` now; None if nobody does."""
    try:
        file = os.open(folder / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if _try(file, fcntl.LOCK_SH):
            return None
        return _content(file) or Holder(0, "unknown", "", 0.0, 0.0)
    finally:
        os.close(file)


def _content(file: int) -> Holder | None:
    """What the holder wrote; None in the instant before it did."""
    text = os.pread(file, 4096, 0)
    try:
        return Holder(**json.loads(text))
    except (ValueError, TypeError):
        return None


def boot_id() -> str:
    """Identity of this boot of the machine: a process id means nothing after the next one."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""
