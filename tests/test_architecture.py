"""Imports point one way, and the heavy libraries stay in their rooms (see the README's tree)."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "synq_tune"
FILES = sorted(PACKAGE.rglob("*.py"))

HOMES = {
    "ray": "search/",
    "optuna": "search/",
    "mlflow": "tracking/",
    "onnx": "export/",
    "onnxruntime": "export/",
    "onnxscript": "export/",
    "openvino": "export/",
    "matplotlib": "analysis/",
}

ORDER = [
    "errors", "notes", "own_code", "redact", "pickle_stack", "error_log", "process", "config",
    "cli", "store", "seeds", "models", "data", "quantization", "synthesis", "finetune", "reconstruction",
    "recipes", "evaluation", "trial", "memory", "inspection", "export",
    "study", "tracking", "analysis", "search", "bench", "testing",
]  # fmt: skip
"""A room imports only from itself and from rooms before it."""

# recipes hold no torch and are read by study and trial alike; study/command.py starts the driver.
ALLOWED = {("study/command.py", "search")}


def _imports(path: Path) -> list[tuple[str, bool]]:
    """(module, whether at module level) of every import in a file."""
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.append((node.module or "", id(node) in top))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_libraries_stay_in_their_rooms(path: Path) -> None:
    """ray and optuna under search/, mlflow in tracking/, onnx* in export/, matplotlib in analysis/."""
    here = str(path.relative_to(PACKAGE))
    for module, _ in _imports(path):
        home = HOMES.get(module.split(".")[0])
        assert home is None or here.startswith(home), f"{here} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    """A room uses only what stands above it."""
    here = path.relative_to(PACKAGE)
    room = here.parts[0].removesuffix(".py")
    if room == "__init__":
        return
    for module, _ in _imports(path):
        parts = module.split(".")
        if parts[0] != "synq_tune" or len(parts) < 2 or (str(here), parts[1]) in ALLOWED:
            continue
        assert ORDER.index(parts[1]) <= ORDER.index(room), f"{here} imports {module}"


def test_scikit_learn_is_imported_lazily() -> None:
    """scikit-learn costs a second at import; only who loads digits pays it."""
    for path in FILES:
        for module, is_top in _imports(path):
            assert not (is_top and module.split(".")[0] == "sklearn"), path


def test_settings_load_without_heavy_libraries() -> None:
    """Reading a space imports neither torch nor Ray, Optuna or MLflow."""
    code = (
        "import sys; from synq_tune.recipes.merge import load_space; load_space('digits_w3a3');"
        "import synq_tune.study.command;"
        "print([m for m in ('torch', 'ray', 'optuna', 'mlflow', 'onnx') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
