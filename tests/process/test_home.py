"""Commands work where HOME does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_CODE = """
import os, sys
from pathlib import Path
from synq_tune.commands.ending import exit_code

def main(argv):
    from synq_tune.store import store_folder
    if "MPLCONFIGDIR" in os.environ:
        Path(os.environ["MPLCONFIGDIR"], "fonts").touch()
    print(store_folder(argv[0] if argv else None))
    return 0

sys.exit(exit_code(main, sys.argv[1:]))
"""


def _run(home: str | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "MPLCONFIGDIR")}
    environment |= {} if home is None else {"HOME": home}
    return subprocess.run(
        [sys.executable, "-c", _CODE, *arguments], env=environment, capture_output=True, text=True,
        cwd="/proc",
    )  # fmt: skip


@pytest.mark.parametrize("home", ["/nonexistent", "/dev/null", "/proc"])
def test_a_store_that_is_named_is_used(home: str, tmp_path: Path) -> None:
    """Libraries get a folder of their own, which is gone afterwards."""
    done = _run(home, str(tmp_path / "store"))
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "store")), done.stderr


@pytest.mark.parametrize("home", ["/nonexistent", "/dev/null"])
def test_the_default_store_is_not_put_where_it_would_be_lost(home: str) -> None:
    """Images that took hours do not go into a folder for temporary files."""
    done = _run(home)
    assert done.returncode == 2
    assert "Set HOME, or pass --store" in done.stderr and len(done.stderr.splitlines()) == 1


def test_an_empty_home_is_not_the_current_folder() -> None:
    """It is as if it were not set: the list of users tells."""
    import pwd

    home = pwd.getpwuid(os.getuid()).pw_dir
    assert _run("").stdout.strip() in ("", f"{home}/.cache/synq_tune")


def test_a_home_that_is_there_is_used(tmp_path: Path) -> None:
    """Nothing changes for everybody else."""
    done = _run(str(tmp_path))
    assert done.stdout.strip() == str(tmp_path / ".cache/synq_tune")
