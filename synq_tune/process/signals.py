"""Ctrl+C, SIGTERM and SIGHUP: end cleanly between a trial's steps, at once everywhere else."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

from synq_tune.process.exit_codes import INTERRUPTED

KINDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Of a user, of a supervisor (`timeout`, systemd, Slurm, Kubernetes), of a terminal that is
closed."""
_DEAF, _INSISTED = 15.0, 5.0
"""Seconds in which the main thread has to heed a first signal, and to end after a second one."""
_SAME = 1.0
"""Seconds within which several are one: `timeout` sends its signal to the process and to its group,
systemd a SIGHUP behind the SIGTERM, and terminals and shells do likewise."""
_current: Interrupts | None = None


class Count:
    """How often somebody signalled, which takes several signals at times."""

    def __init__(self) -> None:
        """Nobody did."""
        self.number, self._last = 0, -math.inf

    def add(self) -> bool:
        """Count a signal; returns whether it is not one more of the last time."""
        now = time.monotonic()
        if now - self._last < _SAME:
            return False
        self.number, self._last = self.number + 1, now
        return True


class Interrupts:
    """Turns the first signal into a request while `deferred`, into KeyboardInterrupt otherwise."""

    def __init__(self) -> None:
        """Nothing is handled yet, see `heeding`."""
        self.requested = threading.Event()
        self.last_words: Callable[[], None] = lambda: None
        """Called before a process ends that cannot end by itself any more."""
        self._is_deferred = False
        self._heard = Count()
        self._arrived = Count()
        self._is_lost = False
        """Whether what was raised got lost, and comes again."""

    @contextlib.contextmanager
    def installed(self) -> Iterator[Interrupts]:
        """Handle `KINDS` inside the block; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        old = {kind: signal.signal(kind, self._handle) for kind in _heeded()}
        hook, sys.unraisablehook = (
            sys.unraisablehook,
            partial(self._raise_again, sys.unraisablehook),
        )
        try:
            with self._watched():
                yield self
        finally:
            sys.unraisablehook = hook
            for kind, handler in old.items():
                signal.signal(kind, handler)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside the block a signal only sets `requested`; it is raised when the block ends."""
        # Libraries started meanwhile (Ray) install handlers of their own.
        for kind in _heeded():
            signal.signal(kind, self._handle)
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False
        self.check()

    def check(self) -> None:
        """Raise what a library may have swallowed.

        Raises:
            KeyboardInterrupt: a signal arrived.
        """
        if self.requested.is_set():
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        is_again, self._is_lost = self._is_lost, False
        if not is_again and not self._heard.add():
            return
        self.requested.set()
        if self._heard.number == 1 and self._is_deferred:
            _say("\nstopping: waiting for the running steps; again to stop at once\n")
            return
        raise KeyboardInterrupt

    def _raise_again(self, hook: Callable[[Any], None], lost: Any) -> None:
        """Python drops what is raised where it cannot be, such as in a `__del__`: repeat the
        signal."""
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            hook(lost)
            return
        self._is_lost = True
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))
        timer.daemon = True
        timer.start()

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Have a thread see signals at once: handlers run only where the main thread is in
        Python."""
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reader,), daemon=True).start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            writer.close()

    def _watch(self, reader: socket.socket) -> None:
        with reader:
            while numbers := reader.recv(64):
                for _ in filter(KINDS.__contains__, numbers):
                    # Ray's own handler of SIGTERM, there until it is replaced, aborts after 3 s.
                    signal.alarm(0)
                    if not self._is_lost and self._arrived.add():
                        self._limit(_DEAF if self._arrived.number == 1 else _INSISTED)

    def _limit(self, seconds: float) -> None:
        timer = threading.Timer(seconds, self._give_up)
        timer.daemon = True
        timer.start()

    def _give_up(self) -> None:
        """End a process that did not heed its first signal, or is still there after its second."""
        if self._heard.number == 0 or self._arrived.number > 1:
            self.last_words()
            os._exit(INTERRUPTED)


@contextlib.contextmanager
def heeding() -> Iterator[Interrupts]:
    """The process's one handler of signals, installed by the outermost of these blocks."""
    global _current
    if _current is not None:
        yield _current
        return
    _current = Interrupts()
    try:
        with _current.installed():
            yield _current
    finally:
        _current = None


def _heeded() -> list[signal.Signals]:
    """`KINDS`, but for a SIGHUP that is ignored: `nohup` asked for that."""
    is_ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [kind for kind in KINDS if kind != signal.SIGHUP or not is_ignored]


def _say(text: str) -> None:
    """Past Python's buffers, in which the main thread may be writing; a terminal that is gone is
    fine."""
    with contextlib.suppress(OSError):
        os.write(2, text.encode())
