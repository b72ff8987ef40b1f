"""Command lines to print: they work in the shell in which they are printed."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

import synq_tune


def command_line(script: str, *arguments: str | os.PathLike[str]) -> str:
    """A call of a command, quoted for a shell, as this process was called itself.

    Args:
        script: the command's file name, such as `search.py`.
        arguments: of the call.
    """
    program = _PROGRAM or [_python(), _place(script)]
    command = [Path(script).stem] if _PROGRAM else []
    return shlex.join([*program, *command, *map(os.fspath, arguments)])


_PROGRAM: list[str] = []
"""How `synq-tune` was called, where that is how this process began; empty for a script."""


def remember_program(path: str) -> None:
    """This process is the program `synq-tune`, started from `path`, or `python -m synq_tune`."""
    if Path(path).name == "__main__.py":
        _PROGRAM[:] = [_python(), "-m", "synq_tune"]
        return
    found = shutil.which(Path(path).name)
    is_found = found is not None and os.path.samefile(found, path)
    _PROGRAM[:] = [Path(path).name if is_found else path]


def same_command_line() -> str:
    """The call of this process."""
    return shlex.join([_python(), *sys.orig_argv[1:]])


def _python() -> str:
    """The interpreter as the user named it, where that finds the same one; else its path."""
    named = sys.orig_argv[0] if sys.orig_argv else ""
    found = shutil.which(named) if named else None
    is_same = found is not None and os.path.samefile(found, sys.executable)
    # A virtual environment's link to the same file is another interpreter.
    is_same = is_same and os.path.abspath(found) == os.path.abspath(sys.executable)
    return named if is_same else sys.executable


def _place(script: str) -> str:
    """The script beside the one that runs, as the user named that; else the checkout's."""
    running = Path(sys.argv[0])
    for folder in (running.parent, Path(synq_tune.__file__).parents[1] / "scripts"):
        if (folder / script).is_file():
            return str(folder / script)
    return f"scripts/{script}"
