"""The errors a user can act on, and the one boundary for what others raise on the user's input."""

from __future__ import annotations

import contextlib
import difflib
import errno
import functools
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

_PACKAGE = Path(__file__).parent
_LINE_LENGTH = 300
_PARSERS = ("yaml", "pydantic", "json", "zipfile", "safetensors", "google.protobuf")
"""What they raise says where a text is wrong, and their tracebacks say no more."""
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


class InputError(ValueError):
    """The user's input is wrong; commands print it as one line and exit with 2."""


class SearchSpaceError(InputError):
    """A space, a recipe or a `--set` does not describe a valid study."""


class ForeignError(InputError):
    """A library or the user's own code raised on the user's input; see `stage`.

    It travels between processes: the text stays whole where the cause is not sent along.
    """

    def __init__(self, line: str, full_text: str) -> None:
        """Take the line that is shown, and the traceback that goes into a log file."""
        super().__init__(line, full_text)
        self.line, self.full_text = line, full_text

    def __str__(self) -> str:
        return self.line


class ServiceError(RuntimeError):
    """A service that the user named could not be reached or used; no traceback says more."""


class NonFiniteError(RuntimeError):
    """What is trained, or measured on it, became NaN or infinite; the trial ends as `diverged`."""


class NonFiniteLossError(NonFiniteError):
    """A loss became NaN or infinite."""


class stage(contextlib.ContextDecorator):  # noqa: N801  (used as `with stage("synthesis"):`)
    """Inside, whatever is raised becomes a ForeignError that says what was done, and with what.

    Here run the user's network, functions, files and numbers, so that even SystemExit is an error
    of theirs. Our own errors pass, and so do Ctrl+C, a full disk (nothing is wrong, and the study
    can go on) and a failed assertion of this package, which is a fault of ours.
    """

    def __init__(
        self,
        name: str,
        about: str = "",
        passes: tuple[type[BaseException], ...] = (),
        runs_code: bool = False,
    ) -> None:
        """Name what is done.

        Args:
            name: such as "loading the teacher".
            about: the key, value or file it is done with.
            passes: more errors that the caller knows what to do with.
            runs_code: the user's network is built here: where a line of ours says what its code
                raised, the traceback is kept, too.
        """
        self.name, self.about, self.runs_code = name, about, runs_code
        self.passes = (
            InputError,
            ServiceError,
            NonFiniteError,
            KeyboardInterrupt,
            GeneratorExit,
            *passes,
        )

    def __enter__(self) -> stage:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if error is None:
            return
        if self.runs_code and isinstance(error, InputError) and _is_of_others(error.__cause__):
            raise ForeignError(
                f"{self._where}: {str(error).rstrip('.')}", full_text(error)
            ) from error
        if isinstance(error, self.passes):
            return
        if is_full_disk(error) or (isinstance(error, AssertionError) and is_raised_here(error)):
            return
        raise ForeignError(f"{self._where}: {first_line(error)}", full_text(error)) from error

    @property
    def _where(self) -> str:
        return f"{self.name} ({_short(self.about)})" if self.about else self.name


def _is_of_others(cause: BaseException | None) -> bool:
    """Whether an InputError says in our words what somebody's code raised: its text is kept, too.

    A file that cannot be read is explained in full by its line.
    """
    if cause is None or isinstance(cause, (InputError, OSError, UnicodeError)):
        return False
    return not is_raised_here(cause) and not type(cause).__module__.startswith(_PARSERS)


def in_stage(
    name: str, about: Callable[[Any], str], runs_code: bool = False
) -> Callable[[Callable], Callable]:
    """Decorate a function with a `stage`; `about` is asked with its first argument."""

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def inside(first: Any, *rest: Any, **named: Any) -> Any:
            with stage(name, about(first), runs_code=runs_code):
                return function(first, *rest, **named)

        return inside

    return decorate


def first_line(error: BaseException) -> str:
    """`Type: first line` of an error, without a full stop; some, such as MemoryError, have no
    text."""
    text = _text(error).strip()
    line = next((part.strip() for part in text.splitlines() if part.strip()), "")
    return f"{type(error).__name__}: {_short(line)}".rstrip(".: ")


def _short(text: str) -> str:
    return text if len(text) <= _LINE_LENGTH else f"{text[:_LINE_LENGTH]} …"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as own:  # of the user's class
        return f"its text cannot be made ({type(own).__name__})"


def full_text(error: BaseException) -> str:
    """The traceback, with those of its causes."""
    return "".join(traceback.format_exception(error))


def is_full_disk(error: BaseException | None) -> bool:
    """Whether a disk had no room, however deep a library has wrapped it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL_DISK:
            return True
        error = error.__cause__ or error.__context__
    return False


def is_raised_here(error: BaseException) -> bool:
    """Whether the innermost frame of the traceback is of this package."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and Path(frames[-1][0].f_code.co_filename).is_relative_to(_PACKAGE)


def lookup(kind: str, name: str, known: Iterable[str], meant: Iterable[str] = ()) -> str:
    """Return `name` if it is known.

    Args:
        kind: what the name is of, for the error.
        name: what the user wrote.
        known: what there is.
        meant: what the user most likely meant, where that is none of `known`.

    Raises:
        InputError: it is not; the nearest known name stands before all of them.
    """
    known = sorted(known)
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    likely = [*meant, *near][:1]
    hint = f" Did you mean {likely[0]!r}?" if likely else ""
    raise InputError(f"Unknown {kind} {name!r}.{hint} Available: {', '.join(known)}.")
