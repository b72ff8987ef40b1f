"""Standard output and error that outlive their readers and take any character."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import Any

_GONE = (errno.EPIPE, errno.EIO, errno.ENXIO)
"""A reader that ended (`| head`), a terminal that was closed."""


class _Lasting(io.FileIO):
    """A stream's descriptor; once nobody reads it, what is written is dropped."""

    def write(self, data: Any) -> int | None:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(data).nbytes


def steady_streams() -> None:
    """Let no reader that is gone, and no character a terminal lacks, end this process's work.

    Only the process's own streams are changed, not what a test or a notebook put in their place.
    """
    _fill_closed()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif stream is getattr(sys, f"__{name}__") and _is_plain(stream):
            setattr(sys, name, _steady(stream))


def _is_plain(stream: Any) -> bool:
    buffer = getattr(stream, "buffer", None)
    return type(getattr(buffer, "raw", buffer)) is io.FileIO  # without a buffer: python -u


def _steady(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    stream.flush()
    raw = _Lasting(stream.fileno(), "w", closefd=False)
    is_buffered = isinstance(stream.buffer, io.BufferedWriter)
    return io.TextIOWrapper(
        io.BufferedWriter(raw) if is_buffered else raw,
        encoding=stream.encoding,
        errors=_errors(stream),
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _errors(stream: io.TextIOWrapper) -> str:
    """Characters that the encoding lacks are replaced; `surrogateescape` would refuse them."""
    return "replace" if stream.errors in ("strict", "surrogateescape") else stream.errors


def _fill_closed() -> None:
    """Open what is closed of descriptors 0 to 2: the next file opened would get its number and its
    text."""
    while True:
        with contextlib.suppress(OSError):
            for number in range(3):
                os.fstat(number)
            return
        os.open(os.devnull, os.O_RDWR)
