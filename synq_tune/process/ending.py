"""How a command begins and ends as a process: steady streams, heeded signals, exit 130 with a
line."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable

from synq_tune.process.exit_codes import INTERRUPTED
from synq_tune.process.home import lend_home, take_home_back
from synq_tune.process.invocation import running_command, same_command_line
from synq_tune.process.signals import Interrupts, heeding
from synq_tune.process.streams import steady_streams

_KEEPS_WORK = ("synthesize", "finetune", "compare")
"""Commands that, given again, go on with what an interrupted one has finished."""
_OWN_LINE = ("search",)


def orderly(run: Callable[..., int]) -> Callable[..., int]:
    """Decorate what runs a command: signals end it with 130, and it says how to go on."""

    @functools.wraps(run)
    def inside(*arguments: object, **named: object) -> int:
        steady_streams()
        lend_home()
        with heeding() as interrupts:
            interrupts.last_words = _say
            try:
                code = run(*arguments, **named)
            except KeyboardInterrupt:
                code = INTERRUPTED
            return _ended(code, interrupts)

    return inside


def _ended(code: int, interrupts: Interrupts) -> int:
    """The exit code; does not return after a signal."""
    if not interrupts.requested.is_set() or code == 0:  # it came when all was done
        return code
    if running_command() not in _OWN_LINE:
        _say()
    # Whatever else was raised came of the signal, such as an import that ended in its middle. What
    # is done is on disk by now: to take libraries down in order, or to wait for their threads,
    # would make a supervisor wait that is about to kill.
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    take_home_back()
    os._exit(INTERRUPTED)


def _say() -> None:
    rest = f"; go on with: {same_command_line()}" if running_command() in _KEEPS_WORK else ""
    print(f"interrupted{rest}", file=sys.stderr, flush=True)
