"""What is wrong with a study's surroundings is one line with the fix, within a second."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEARCH = [sys.executable, str(ROOT / "scripts/search.py"), "--space", "digits_w3a3"]


def _file(path: Path) -> str:
    path.touch()
    return str(path)


TABLE: dict[str, tuple[str, Callable[[Path], list[str]], str]] = {
    "study's folder below a file": (
        "", lambda tmp: ["--output-dir", f"{_file(tmp / 'f')}/study"], "study's folder can be written",
    ),
    "study's folder in /proc": ("", lambda tmp: ["--output-dir", "/proc/study"], "--output-dir DIR"),
    "store below a file": (
        "", lambda tmp: ["--store", f"{_file(tmp / 'f')}/store"], "the store can be written",
    ),
    "store in /proc": ("", lambda tmp: ["--store", "/proc/store"], "--store DIR"),
    "MLflow's file in /proc": (
        "", lambda tmp: ["--tracking-uri", "sqlite:////proc/x/mlflow.db"], "--tracking-uri sqlite",
    ),
    "few open files": ("ulimit -n 256;", lambda tmp: [], "ulimit -n >= 1024"),
    "a folder that was deleted": (
        "mkdir gone; cd gone; rmdir ../gone;", lambda tmp: [], "the current folder exists",
    ),
    "no home": ("export HOME=/nonexistent;", lambda tmp: ["--store", ""], "Set HOME, or pass --store"),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_it_is_refused_before_any_work(tmp_path: Path, name: str) -> None:
    """Exit 2, one line that names the fix, and no study left behind."""
    before, arguments, expected = TABLE[name]
    given = arguments(tmp_path)
    if "--store" not in given:
        given += ["--store", str(tmp_path / "store")]
    if "--output-dir" not in given:
        given += ["--output-dir", str(tmp_path / "study")]
    command = ["bash", "-c", f'{before} exec "$@"', "_", *SEARCH, *given]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "study").exists() and not (tmp_path / "store").exists()


_MENDED = """
import os, tempfile
from synq_tune.study.preflight import ask_process
ask_process()
print(tempfile.gettempdir(), os.environ.get("TMPDIR"), os.environ.get("no_proxy"))
"""


@pytest.mark.parametrize("value", ["/nonexistent", "/dev/null", "/proc", "", "relative/../x"])
def test_a_useless_tmpdir_is_passed_over(value: str, tmp_path: Path) -> None:
    """By every library alike: Ray would take TMPDIR as it stands."""
    out = _mended(tmp_path, TMPDIR=value)
    assert out[0] == out[1] != value


def test_a_useful_tmpdir_is_used(tmp_path: Path) -> None:
    """Nothing changes for everybody else."""
    assert _mended(tmp_path, TMPDIR=str(tmp_path))[:2] == [str(tmp_path)] * 2


def test_a_proxy_is_not_asked_for_this_machine(tmp_path: Path) -> None:
    """What was exempt stays so."""
    proxies = {"http_proxy": "http://proxy:1", "NO_PROXY": "intra.net"}
    assert _mended(tmp_path, **proxies)[2] == "intra.net,localhost,127.0.0.1,::1"
    assert _mended(tmp_path)[2] == "None"


def _mended(folder: Path, **environment: str) -> list[str]:
    plain = {k: v for k, v in os.environ.items() if "proxy" not in k.lower() and k != "TMPDIR"}
    done = subprocess.run(
        [sys.executable, "-c", _MENDED], cwd=folder, env={**plain, **environment},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.split()
