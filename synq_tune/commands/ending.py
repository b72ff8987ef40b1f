"""What every command shares: how a program ends."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from synq_tune import error_log
from synq_tune.errors import (
    ForeignError,
    InputError,
    NonFiniteError,
    ServiceError,
    first_line,
    full_text,
    is_full_disk,
    is_raised_here,
)
from synq_tune.process.allocator import keep_freed_memory
from synq_tune.process.ending import orderly
from synq_tune.process.exit_codes import INTERRUPTED, NOTHING_FINISHED, OUR_FAULT, WRONG_INPUT
from synq_tune.process.invocation import as_called, is_program, running_command

_OF_THE_INPUT = (OSError, MemoryError, OverflowError, RecursionError, UnicodeError)
"""What files, networks, numbers and texts of the user raise, wherever it comes up."""
_LIBRARIES = (
    r"(torch|torchvision|timm|pytorchcv|onnx|optuna|ray|mlflow|pydantic|sqlalchemy|alembic)\b"
)
"""Their warnings tell developers of this package what to change."""


@orderly
def exit_code(
    main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None
) -> int:
    """Run a command; whatever goes wrong becomes one line on stderr instead of a traceback.

    The full text of an error that is not our own goes to a log file, which the line names;
    `SYNQ_TUNE_TRACEBACK=1` shows it on stderr too.

    Args:
        main: takes the arguments (None = the process's own) and returns an exit code.
        argv: passed on to `main`.

    Returns:
        What `main` returned; 2 after a mistake of the user, and where a library or the user's own
        code raised; 3 where the only training or synthesis there was diverged; 130 after Ctrl+C,
        SIGTERM and SIGHUP; 1 after a fault of this package, which the line asks to report.
    """
    try:
        with warnings.catch_warnings():
            _quieten()
            keep_freed_memory()
            return main(argv)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if error_log.is_shown():
            print(error_log.redact_uri(full_text(error)), file=sys.stderr)
        code, line = _ending(error, _command(main))
        print(f"error: {as_called(error_log.one_line(line))}", file=sys.stderr)
        return code


def _ending(error: Exception, command: str) -> tuple[int, str]:
    """The exit code after an error, and the line that says what happened."""
    if isinstance(error, NonFiniteError):
        return NOTHING_FINISHED, str(error)
    if isinstance(error, (InputError, ServiceError)) and not isinstance(error, ForeignError):
        return WRONG_INPUT, str(error)
    place = _keep(error, command)
    if isinstance(error, ForeignError):
        return WRONG_INPUT, f"{error}. {place}"
    if is_full_disk(error):
        return WRONG_INPUT, f"{command}: the disk is full ({first_line(error)}). {place}"
    if isinstance(error, _OF_THE_INPUT) or not is_raised_here(error):
        return WRONG_INPUT, f"{command}: {first_line(error)}. {place}"
    fault = "This is a fault in synq-tune, please report it with that file."
    return OUR_FAULT, f"{command}: {first_line(error)}. {place} {fault}"


def _keep(error: Exception, command: str) -> str:
    """Write the full text: into the study's folder, where the error was noted to belong to one."""
    text = full_text(error)
    if isinstance(error, ForeignError) and error.__cause__ is None:  # it came from another process
        text = f"{error.full_text}\n{text}"
    return error_log.place(error_log.keep(text, command, getattr(error, "study_folder", None)))


def _command(main: Callable) -> str:
    """The command's name, such as `search`."""
    if is_program():
        return running_command()
    return Path(main.__code__.co_filename).stem if hasattr(main, "__code__") else "command"


def _quieten() -> None:
    """Keep libraries' notes to their own developers off the user's terminal, unless asked for."""
    if sys.warnoptions:  # python -W or PYTHONWARNINGS
        return
    for kind in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=kind)
    warnings.filterwarnings("ignore", category=UserWarning, module=_LIBRARIES)
