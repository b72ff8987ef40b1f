"""Workers run in the driver's current folder, so that relative paths in the user's code mean the
same."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path


def go_to(folder: str) -> None:
    """Change to the driver's folder, where this machine has it; Tune changes to one of its own."""
    if Path(folder).is_dir():
        os.chdir(folder)


@contextlib.contextmanager
def naming_missing_folder(folder: str) -> Iterator[None]:
    """Say so where a file is missing because this machine lacks the driver's folder.

    Raises:
        FileNotFoundError: with that in its text.
    """
    try:
        yield
    except FileNotFoundError as error:
        if Path(folder).is_dir():
            raise
        raise FileNotFoundError(
            f"{error}. The driver runs in {folder}, which {socket.gethostname()} does not have: "
            "relative paths in your code need it on every machine"
        ) from error
