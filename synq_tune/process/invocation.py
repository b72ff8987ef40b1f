"""Command lines to print: they work in the shell in which they are printed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import synq_tune


def command_line(script: str, *arguments: str | os.PathLike[str]) -> str:
    """A call of a command, quoted for a shell, as this process was called itself.

    Args:
        script: the command's file name, such as `search.py`.
        arguments: of the call.
    """
    return shlex.join([*_call(script), *map(os.fspath, arguments)])


def _call(script: str) -> list[str]:
    place = None if _PROGRAM else _place(script)
    if place is not None:
        return [_python(), place]
    # An installed package has no scripts: from Python, `-m` is what always works.
    return [*(_PROGRAM or [_python(), "-m", "synq_tune"]), Path(script).stem]


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


def running_command() -> str:
    """The command that this process runs, such as `search`, whether of a script or of the
    program."""
    return Path(sys.argv[0].removeprefix(_TITLE)).stem


def begin_command(command: str) -> None:
    """The program runs `command` from here on; argparse names itself by it."""
    sys.argv[0] = f"{_TITLE}{command}"


_TITLE = "synq-tune "


def is_program() -> bool:
    """Whether this process is `synq-tune` or `python -m synq_tune`, not a script or the user's own
    code."""
    return bool(_PROGRAM)


def as_called(text: str) -> str:
    """A text that names scripts, such as `scripts/status.py`, with the names that the user knows.

    A script leaves it as it is; in the program it becomes `synq-tune status`.
    """
    if not _PROGRAM:
        return text
    return _SCRIPT.sub(lambda m: shlex.join([*_PROGRAM, m[1]]) if _is_command(m[1]) else m[0], text)


_SCRIPT = re.compile(r"(?:\bpython )?(?<![\w/.~-])scripts/(\w+)\.py\b")


def _is_command(name: str) -> bool:
    """A script without a subcommand, and the user's own `scripts/net.py`, keep their names."""
    return (Path(synq_tune.__file__).parent / "cli" / f"{name}.py").is_file()


def recorded_command_line(script: str, arguments: Sequence[str]) -> str:
    """A call of a command to keep in a file: it names no folder of this machine.

    Args:
        script: the command's file name, such as `compare.py`.
        arguments: of the call.
    """
    call = ["synq-tune", Path(script).stem] if _PROGRAM else ["python", f"scripts/{script}"]
    return shlex.join([*call, *arguments])


def same_command_line() -> str:
    """The call of this process."""
    if _PROGRAM and "-m" not in _PROGRAM:
        return shlex.join([*_PROGRAM, *sys.argv[1:]])
    return shlex.join([_python(), *sys.orig_argv[1:]])


def _python() -> str:
    """The interpreter's name, where the user's shell finds the same one by it; else its path."""
    named = sys.orig_argv[0] if sys.orig_argv else ""
    is_name = named == os.path.basename(named)  # `.venv/bin/python` is found in one folder only
    found = shutil.which(named) if named and is_name else None
    is_same = found is not None and os.path.samefile(found, sys.executable)
    # A virtual environment's link to the same file is another interpreter.
    is_same = is_same and os.path.abspath(found) == os.path.abspath(sys.executable)
    return named if is_same else sys.executable


def program(name: str) -> list[str]:
    """How to call a program of this environment from the user's shell, such as `mlflow`.

    Its name where the shell finds the same file, else its path; `python -m NAME` where it has none.
    """
    ours, found = Path(sys.executable).parent / name, shutil.which(name)
    if not ours.is_file():
        return [_python(), "-m", name]
    is_found = found is not None and os.path.samefile(found, ours)
    return [name if is_found else str(ours)]


def _place(script: str) -> str | None:
    """The script beside the one that runs; else the checkout's, if there is one. Absolute."""
    running = Path(sys.argv[0])
    for folder in (running.parent, Path(synq_tune.__file__).parents[1] / "scripts"):
        if (folder / script).is_file():
            return os.path.abspath(folder / script)
    return None
