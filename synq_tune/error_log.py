"""Where the full text of an error goes when the user is shown one line of it."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from pathlib import Path

from synq_tune.redact import redact_uri

FOLDER = "errors"
"""Of a study: one file per command or run that ended with somebody else's error."""
SHOW = "SYNQ_TUNE_TRACEBACK"
"""Environment variable; anything but empty or 0 shows the full text on stderr too."""

_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


def one_line(text: str) -> str:
    """A text as one line for a terminal: no line breaks, control codes or credentials."""
    return redact_uri(_CODES.sub("", " ".join(text.split())))


def keep(text: str, name: str, folder: Path | None = None) -> Path | None:
    """Write the full text of an error, credentials taken out.

    Args:
        text: a traceback.
        name: of the command or run; a later error of the same name replaces it in a study's folder.
        folder: of the study; None, or where it cannot be written, is a new temporary file.

    Returns:
        The file; None where no file can be written.
    """
    text = redact_uri(text)
    if folder is not None and folder.is_dir():
        with contextlib.suppress(OSError):
            path = folder / FOLDER / f"{name}.log"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, "utf-8", "backslashreplace")
            return path
    return _temporary(text, name)


def _temporary(text: str, name: str) -> Path | None:
    try:
        handle, path = tempfile.mkstemp(prefix=f"synq_tune-{name}-", suffix=".log")
    except OSError:
        return None
    with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    return Path(path)


def place(path: Path | None) -> str:
    """The sentence that says where the full text is."""
    return f"Set {SHOW}=1 to see the full text." if path is None else f"The full text is in {path}."


def is_shown() -> bool:
    """Whether the user asked to see full texts."""
    return os.environ.get(SHOW, "") not in ("", "0")
