"""A study of somebody else, or one that anybody can change, is refused: it can name code to run."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from synq_tune.config.load import load_space
from synq_tune.errors import InputError
from synq_tune.study.ledger import LEDGER_NAME, Ledger
from tests.security.conftest import ROOT

NOBODY = 65534
COMMANDS = {
    "search": ("scripts/search.py", "--resume"),
    "status": ("scripts/status.py",),
    "export": ("scripts/export.py", "--study"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study that has not begun."""
    Ledger.create(tmp_path / "study", load_space("digits_w3a3")).close()
    return tmp_path / "study"


def _needs_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to another user")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.long
def test_somebody_elses_study_is_refused(folder: Path, command: str) -> None:
    """Exit code 2, one line that says whose it is; nothing is written."""
    _needs_root()
    for path in (folder, *folder.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    before = sorted(path.name for path in folder.iterdir())
    program, *flags = COMMANDS[command]
    done = subprocess.run(
        [sys.executable, str(ROOT / program), *flags, str(folder)],
        capture_output=True, text=True, cwd=folder.parent, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert f"belongs to user {NOBODY} and you are 0" in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_ledger_put_there_by_somebody_else_is_refused(folder: Path) -> None:
    """A folder of a group's can hold other people's files."""
    _needs_root()
    os.chown(folder / LEDGER_NAME, NOBODY, NOBODY)
    with pytest.raises(InputError, match=f"{LEDGER_NAME} belongs to user {NOBODY}"):
        Ledger.open(folder)


@pytest.mark.parametrize("name", ["", LEDGER_NAME], ids=["folder", "ledger"])
def test_what_anybody_can_change_is_refused(folder: Path, name: str) -> None:
    """With the command that puts it right; a group may share a study."""
    path = folder / name
    path.chmod(path.stat().st_mode | stat.S_IWGRP)
    Ledger.open(folder)
    path.chmod(path.stat().st_mode | stat.S_IWOTH)
    with pytest.raises(InputError, match=f"chmod -R o-w {folder}"):
        Ledger.open(folder)


def test_a_folder_for_everyone_is_no_place_for_a_study(tmp_path: Path) -> None:
    """It is refused before anything is written into it."""
    tmp_path.chmod(0o777)
    with pytest.raises(InputError, match="with mode 777"):
        Ledger.create(tmp_path, load_space("digits_w3a3"))
    assert list(tmp_path.iterdir()) == []


def test_a_new_study_is_not_for_everyone_to_write(tmp_path: Path) -> None:
    """Whatever the umask: it would be refused when it is opened again."""
    before = os.umask(0)
    try:
        Ledger.create(tmp_path / "studies" / "new", load_space("digits_w3a3")).close()
    finally:
        os.umask(before)
    Ledger.open(tmp_path / "studies" / "new")
