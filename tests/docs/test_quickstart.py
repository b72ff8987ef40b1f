"""The lines of the first ten minutes, run as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT

PAGE = ROOT / "docs/quickstart.md"


def lines() -> list[str]:
    """Those in shell blocks; the others install, or start a server."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_every_script_is_there() -> None:
    """Each line runs a script of the checkout, but the one that finds the study."""
    scripts = [match[1] for line in lines() if (match := re.search(r"(scripts/\w+\.py)", line))]
    assert len(scripts) == len(lines()) - 1
    assert all((ROOT / script).is_file() for script in scripts)


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_lines_work_as_printed(finished: tuple[Path, str], tmp_path: Path) -> None:
    """In one shell, behind a search like `make search`'s: none fails, and both files read alike."""
    study = tmp_path / "studies/digits_w3a3-20260101-000000"
    shutil.copytree(finished[0], study)
    for name in ("scripts", "search_spaces"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    script = "set -e\n" + "\n".join(lines()).replace(".venv/bin/python", sys.executable)
    script = script.replace("--num-trials 14", "--num-trials 5")  # of a study of four
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = re.findall(r"top1 ([\d.]+) % on", done.stdout)
    assert first == second
