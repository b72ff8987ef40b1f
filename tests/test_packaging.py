"""What is installed works without the source tree."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
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
    code_and_data = ("*.yaml", "*.py", "*.safetensors", "*.jsonl", "*.html", "*.css", "*.js")
    spaces = {p for kind in code_and_data for p in (ROOT / "search_spaces").rglob(kind)}
    package = {p for kind in code_and_data for p in (ROOT / "synq_tune").rglob(kind)}
    needed = {f"synq_tune/{p.relative_to(ROOT)}" for p in spaces}
    needed |= {str(p.relative_to(ROOT)) for p in package}
    assert needed <= held
    assert "synq_tune/py.typed" in held
    assert all(name.startswith("synq_tune/") for name in held)


@pytest.mark.slow
def test_an_installed_package_finds_its_spaces(wheel: Path, tmp_path: Path) -> None:
    """Recipes, best-known configurations and recorded grids too, without the source tree on the path."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import synq_tune; from synq_tune.config.load import load_space;"
        "from synq_tune.experiments.regret import BUNDLED;"
        "best = load_space('digits_w3a3', start='digits_w3a3').study.first;"
        "recipe = load_space('digits_w3a3', ['recipe=synq_paper']).recipe;"
        "print(synq_tune.__file__, recipe, len(best), BUNDLED.is_file())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    where, *found = run.stdout.split()
    assert where.startswith(str(tmp_path)) and found == ["synq_paper", "1", "True"]


@pytest.mark.slow
def test_an_installed_package_has_its_program(wheel: Path, tmp_path: Path) -> None:
    """`synq-tune` and `python -m synq_tune` from another folder: version, spaces, a network inspected."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    python = tmp_path / "env" / "bin" / "python"
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--no-index", "--disable-pip-version-check", str(wheel)], check=True)
    # What the package needs lies in this interpreter's folder; the package itself must not.
    (site / "others.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n")
    program = [str(tmp_path / "env" / "bin" / "synq-tune")]

    def said(*command: str) -> str:
        return subprocess.run(
            command, cwd=tmp_path, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip

    where = said(str(python), "-c", "import synq_tune; print(synq_tune.__file__)")
    assert where.startswith(str(site))
    assert said(*program, "--version").startswith("synq-tune ")
    assert "digits_w3a3" in said(*program, "spaces")
    shown = said(str(python), "-m", "synq_tune", "inspect", "--space", "digits_w3a3")
    assert "quantizer minmax" in shown
