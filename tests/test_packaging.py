"""What is installed works without the source tree."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's wheel, built as `pip install .` does."""
    folder, source = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("source")
    for name in ("synq_tune", "search_spaces"):  # a build leaves files where it builds
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=skipped)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run(build, check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_every_file_that_is_read(wheel: Path) -> None:
    """Spaces, best-known configurations, variants, recipes, weights and recorded grids; no test."""
    with zipfile.ZipFile(wheel) as archive:
        held = {
            name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")
        }
    code_and_data = ("*.yaml", "*.py", "*.safetensors", "*.jsonl")
    spaces = {p for kind in code_and_data for p in (ROOT / "search_spaces").rglob(kind)}
    package = {p for kind in code_and_data for p in (ROOT / "synq_tune").rglob(kind)}
    needed = {f"synq_tune/{p.relative_to(ROOT)}" for p in spaces}
    needed |= {str(p.relative_to(ROOT)) for p in package}
    assert needed <= held
    assert all(name.startswith("synq_tune/") for name in held)


@pytest.mark.slow
def test_an_installed_package_finds_its_spaces(wheel: Path, tmp_path: Path) -> None:
    """From another folder, without the source tree on the path."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import synq_tune; from synq_tune.config.load import load_space;"
        "spec = load_space('digits_w3a3', start='digits_w3a3');"
        "print(synq_tune.__file__, spec.name, len(spec.study.first))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    where, name, first = run.stdout.split()
    assert where.startswith(str(tmp_path)) and (name, first) == ("digits_w3a3", "1")
