"""No reader that is gone and no character a terminal lacks ends a command."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_COMMAND = """
import sys
from synq_tune.commands.ending import exit_code

def main(argv):
    for number in range(20000):
        print("\\u03c4 \\u2026 line", number)
    print("\\u03c4 \\u2026 to the end", file=sys.stderr)
    return 0

sys.exit(exit_code(main))
"""


def _shell(text: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = text.replace("COMMAND", '"$PY" -c "$CODE"')
    more = {"PYTHONUNBUFFERED": "", "PY": sys.executable, "CODE": _COMMAND, **environment}
    return subprocess.run(
        ["bash", "-c", command], env={**os.environ, **more}, capture_output=True, timeout=60
    )


@pytest.mark.parametrize(
    "shell",
    [
        "COMMAND | head -1 >/dev/null; exit ${PIPESTATUS[0]}",
        "COMMAND 2>&1 | true; exit ${PIPESTATUS[0]}",
        "PYTHONUNBUFFERED=1 COMMAND | head -1 >/dev/null; exit ${PIPESTATUS[0]}",
        "COMMAND >&-",
        "COMMAND 2>&-",
        "COMMAND <&- >&- 2>&-",
    ],
)
def test_readers_may_go(shell: str) -> None:
    """A pipe that is closed, a stream that was never open."""
    done = _shell(shell)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr and b"BrokenPipe" not in done.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "latin-1:strict"},
        {"PYTHONIOENCODING": "ascii", "PYTHONUNBUFFERED": "1"},
        {"COLUMNS": "wide"},
        {"COLUMNS": "0", "LINES": "-1"},
    ],
    ids=str,
)
def test_any_terminal_will_do(environment: dict[str, str]) -> None:
    """Characters that it lacks are replaced."""
    done = _shell("COMMAND", **environment)
    assert done.returncode == 0, done.stderr
    assert b"to the end" in done.stderr


def test_a_closed_descriptor_is_nobody_elses() -> None:
    """Else the ledger could be file 1, and get what is printed by libraries."""
    code = (
        "import os; from synq_tune.process.streams import steady_streams; steady_streams();"
        "number = os.open('/dev/null', os.O_RDONLY); os._exit(0 if number > 2 else 1)"
    )
    assert _shell('"$PY" -c "$CODE" <&- >&- 2>&-', CODE=code).returncode == 0
