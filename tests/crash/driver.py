"""`scripts/search.py` with a fault built in: what the crash tests start as the driver.

The fault is described by the environment variable CRASH, `WHERE:NUMBER[:EVENT[:NAME]]`: at the
NUMBER-th append to the ledger by this process (only of EVENT, and of the stage NAME, if given)

    before   SIGKILL instead of writing the line
    after    SIGKILL when the line is on disk, before anything acts on it
    torn     write half of the line, then SIGKILL
    full     when the line is on disk, the disk is full: every later append and file fails

Nothing of the package knows about it.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from synq_tune.study import ledger as ledger_module  # noqa: E402

_write_line = ledger_module.Ledger._write


class Fault:
    """Counts the appends of this process and strikes at one of them."""

    def __init__(self, text: str) -> None:
        self.where, number, *event = text.split(":")
        self.left = int(number)
        self.marks = [f'"{k}":"{v}"' for k, v in zip(("event", "name"), event, strict=False)]

    def is_now(self, line: bytes) -> bool:
        """Whether this line is the one."""
        if all(mark in line.decode() for mark in self.marks):
            self.left -= 1
            return self.left == 0
        return False

    def write(self, ledger: Any, line: bytes) -> None:
        """Stands in for `Ledger._write`."""
        is_now = self.is_now(line)
        if is_now and self.where == "torn":
            os.pwrite(ledger._writable(), line[: len(line) // 2], ledger._end)
        elif not is_now or self.where in ("after", "full"):
            _write_line(ledger, line)
        if is_now and self.where == "full":
            _fill_disk()
        elif is_now:
            os.kill(os.getpid(), signal.SIGKILL)


def _fill_disk() -> None:
    """From now on nothing can be written."""
    from synq_tune import store

    def refuse(*arguments: Any, **keywords: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    ledger_module.write_all = refuse
    store.tempfile.mkstemp = refuse


def main() -> int:
    """Build the fault in, then be `scripts/search.py`."""
    if os.environ.get("CRASH"):
        fault = Fault(os.environ["CRASH"])
        ledger_module.Ledger._write = lambda ledger, line: fault.write(ledger, line)
    import search

    from synq_tune.commands.ending import exit_code

    return exit_code(search.main)


if __name__ == "__main__":
    sys.exit(main())
