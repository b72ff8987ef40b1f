"""Ctrl+C and SIGTERM: end cleanly between a trial's steps, at once everywhere else."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupts:
    """Turns the first signal into a request while `deferred`, into KeyboardInterrupt otherwise."""

    def __init__(self) -> None:
        self.requested = threading.Event()
        self._is_deferred = False

    @contextlib.contextmanager
    def installed(self) -> Iterator[Interrupts]:
        """Handle SIGINT and SIGTERM inside the block."""
        kinds = (signal.SIGINT, signal.SIGTERM)
        old = {kind: signal.signal(kind, self._handle) for kind in kinds}
        try:
            yield self
        finally:
            for kind, handler in old.items():
                signal.signal(kind, handler)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside the block a signal only sets `requested`; it is raised when the block ends."""
        # Libraries started meanwhile (Ray) install handlers of their own.
        for kind in (signal.SIGINT, signal.SIGTERM):
            signal.signal(kind, self._handle)
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False
        if self.requested.is_set():
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        is_first = not self.requested.is_set()
        self.requested.set()
        if is_first and self._is_deferred:
            print(
                "\nstopping: waiting for the running steps; again to stop at once", file=sys.stderr
            )
            return
        raise KeyboardInterrupt
