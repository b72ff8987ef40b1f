"""One driver per study: a lock on its folder that dies with its holder, and a lease that shows its
life.

The kernel's lock (flock) decides wherever both drivers run on one kernel. On a network file system
it may be missing, or hold on each machine by itself: there the lease decides, the holder's sign of
life in the lock's file, every `BEAT` seconds. Who finds a lease of another machine looks whether it
still changes; no clock is compared, since two machines' clocks differ.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from synq_tune.errors import InputError

LOCK_NAME = "lock"
BEAT = 10.0
"""Seconds between two signs of life."""
SILENCE = 2.5 * BEAT
"""Seconds without one after which a holder on another machine is taken for dead."""
_ATTEMPTS, _PAUSE = 10, 0.05
_log = logging.getLogger(__name__)

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
    """Last sign of life, in seconds since the epoch, by the holder's clock."""

    @property
    def is_here(self) -> bool:
        """Whether it runs, or ran, on this kernel, whose own lock tells everything."""
        return self.boot_id == boot_id()

    @property
    def is_dead(self) -> bool:
        """Whether this machine has started anew since its last sign of life."""
        started = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return self.host == socket.gethostname() and not self.is_here and self.seen < started

    def __str__(self) -> str:
        age = max(0.0, time.time() - self.seen)
        seen = f", last sign of life {age:.0f} s ago" if self.seen else ""
        return f"process {self.pid} on {self.host}{seen}"


class StudyLock:
    """A lock that is held."""

    def __init__(self, file: int) -> None:
        """Write the first sign of life."""
        self._file = file
        self._since = time.time()
        self._end = threading.Event()
        self.refresh()

    def refresh(self) -> None:
        """Write a sign of life."""
        mine = Holder(os.getpid(), socket.gethostname(), boot_id(), self._since, time.time())
        text = json.dumps(asdict(mine)).encode() + b"\n"
        os.pwrite(self._file, text, 0)
        os.ftruncate(self._file, len(text))

    @contextlib.contextmanager
    def beating(self) -> Iterator[StudyLock]:
        """Have a thread refresh it inside the block; a lease that ends in order is empty."""
        thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._end.set()
            thread.join()
            with contextlib.suppress(OSError):  # a full disk, or one that is gone: it grows stale
                if self._is_ours():
                    os.ftruncate(self._file, 0)

    def _beat(self) -> None:
        while not self._end.wait(BEAT):
            try:
                if not self._is_ours():
                    return  # this machine slept, and another one took over; the ledger notices
                self.refresh()
            except OSError as error:
                _log.warning("the study's lock shows no sign of life: %s", error)

    def _is_ours(self) -> bool:
        found = _content(self._file)
        return found is None or (found.pid == os.getpid() and found.is_here)


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
        _watch_lease(file, folder)
        with StudyLock(file).beating() as lock:
            yield lock
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
    raise _driven(folder, _content(file))


def _driven(folder: Path, found: Holder | None) -> InputError:
    return InputError(
        f"`one driver per study` must hold, but {folder} is being driven by "
        f"{found or 'another process'}. Wait for it, or stop it with Ctrl+C and run the same command "
        "again."
    )


def _watch_lease(file: int, folder: Path) -> None:
    """Wait until a lease of another machine is seen to be stale.

    Raises:
        InputError: there was a sign of life.
    """
    found = _content(file)
    if found is None or found.is_here or found.is_dead:
        return
    print(
        f"lock      {folder} was last driven by {found}; looking for {SILENCE:.0f} s whether it lives",
        file=sys.stderr,
        flush=True,
    )
    deadline = time.monotonic() + SILENCE
    while time.monotonic() < deadline:
        time.sleep(min(1.0, SILENCE / 10))
        now = _content(file)
        if now is None:  # it ended
            return
        if now != found:
            raise _driven(folder, now)


def _try(file: int, kind: int) -> bool:
    """Whether the kernel gave the lock; a file system without locks leaves it to the lease."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        _log.info("no flock here (%s): the lease alone decides", error.strerror)
    return True


def holder(folder: Path) -> Holder | None:
    """Who drives the study in `folder` now; None if nobody does.

    Of another machine it is whoever was seen within `SILENCE` seconds, by the clocks.
    """
    try:
        file = os.open(folder / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        found = _content(file)
        if _try(file, fcntl.LOCK_SH):
            return found if found is not None and _lives_elsewhere(found) else None
        return _content(file) or Holder(0, "unknown", "", 0.0, 0.0)
    finally:
        os.close(file)


def _lives_elsewhere(found: Holder) -> bool:
    is_fresh = abs(time.time() - found.seen) < SILENCE
    return is_fresh and not found.is_here and not found.is_dead


def _content(file: int) -> Holder | None:
    """What the holder wrote; None in the instant before it did, and after it ended in order."""
    text = os.pread(file, 4096, 0)
    try:
        return Holder(**json.loads(text))
    except (ValueError, TypeError):
        return None


def boot_id() -> str:
    """Identity of this boot of the machine: a process id means nothing after the next one."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text(encoding="utf-8").strip() if path.exists() else socket.gethostname()
