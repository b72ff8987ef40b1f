"""Faults put into a copy of the package, one at a time: the tests have to notice each.

`pytest tests/mutants -m slow` prints what survived; the list is `mutants.yaml`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.helpers import ROOT

HERE = Path(__file__).parent
COPIED = ("synq_tune", "tests", "scripts", "search_spaces", "docs", "pyproject.toml", "README.md")


@dataclass(frozen=True)
class Mutant:
    """A text of a file of the package, and what stands there instead."""

    file: str
    before: str
    after: str
    tests: str
    equivalent: str | None
    """Why no test can notice; None: one has to."""

    @property
    def own_tests(self) -> str | None:
        """The file of tests named after the mutated one, which is asked first; None without one."""
        file = f"{self.tests}/test_{Path(self.file).name}"
        return file if (ROOT / file).is_file() else None


def mutants() -> list[Mutant]:
    """All of them, in the file's order."""
    rooms = yaml.safe_load((HERE / "mutants.yaml").read_text())
    return [
        Mutant(
            f"synq_tune/{file}",
            entry["from"],
            entry["to"],
            entry.get("tests", f"tests/{file.partition('/')[0]}"),
            entry.get("equivalent"),
        )
        for file, entries in rooms.items()
        for entry in entries
    ]


ALL = [pytest.param(m, id=f"{m.file}:{i}") for i, m in enumerate(mutants())]


@pytest.mark.parametrize("mutant", ALL)
def test_a_fault_can_be_made(mutant: Mutant) -> None:
    """Its text stands once in the file, and it is another text."""
    assert (ROOT / mutant.file).read_text().count(mutant.before) == 1
    assert mutant.after != mutant.before
    assert (ROOT / mutant.tests.partition("::")[0]).exists()


def test_there_are_enough() -> None:
    """Quantization, views, fine-tuning and the study's records each have several."""
    rooms = [m.file.split("/")[1] for m in mutants()]
    assert len(rooms) >= 40
    assert min(rooms.count(name) for name in ("quantization", "views", "finetune", "study")) >= 8


@pytest.fixture(scope="session")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project in another folder, which faults may be put into."""
    folder = tmp_path_factory.mktemp("mutated") / "project"
    folder.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def run_tests(folder: Path, tests: str) -> subprocess.CompletedProcess[str]:
    """The default tests of a folder on the copy, to the first failure."""
    arguments = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow and not long"]
    arguments += ["--timeout", "120"]  # a fault may never end
    return subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, *tests.split()],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("mutant", ALL)
def test_a_fault_is_noticed(mutant: Mutant, copy: Path) -> None:
    """Some default test of its room fails, most often one of the file's own."""
    if mutant.equivalent:
        pytest.skip(mutant.equivalent)
    path = copy / mutant.file
    original = path.read_text()
    path.write_text(original.replace(mutant.before, mutant.after))
    try:
        assert any(_notice(copy, tests) for tests in (mutant.own_tests, mutant.tests) if tests)
    finally:
        path.write_text(original)


def _notice(folder: Path, tests: str) -> bool:
    done = run_tests(folder, tests)
    assert done.returncode in (0, 1), done.stdout[-2000:]
    return done.returncode == 1
