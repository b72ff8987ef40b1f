"""Imports point one way, and the heavy libraries stay in their rooms (docs/architecture.md)."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "synq_tune"
FILES = sorted(PACKAGE.rglob("*.py"))

_TABLE = re.findall(
    r"^\| `(\w+)` \|[^|]*\|(.*)\|$",
    (PACKAGE.parent / "docs" / "architecture.md").read_text(),
    flags=re.MULTILINE,
)
ORDER = [room for room, _ in _TABLE]
"""A room imports only from itself and from rooms before it."""
HOMES = {library: room for room, names in _TABLE for library in re.findall(r"`(\w+)`", names)}
"""Library → the one room that imports it."""


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
    """ray and optuna under search/, mlflow in tracking/, onnx* in export/, plots in report/."""
    here = path.relative_to(PACKAGE)
    for module, _ in _imports(path):
        home = HOMES.get(module.split(".")[0])
        assert home in (None, here.parts[0]), f"{here} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    """A room uses only what stands above it."""
    here = path.relative_to(PACKAGE)
    room = here.parts[0].removesuffix(".py")
    if room in ("__init__", "__main__"):
        return
    for module, _ in _imports(path):
        parts = module.split(".")
        if parts[0] != "synq_tune" or len(parts) < 2:
            continue
        assert ORDER.index(parts[1]) <= ORDER.index(room), f"{here} imports {module}"


def test_every_room_stands_in_the_table() -> None:
    """The table names each room once, and what it names exists or is still to come."""
    rooms = {p.relative_to(PACKAGE).parts[0].removesuffix(".py") for p in FILES} - {
        "__init__",
        "__main__",
    }
    assert len(ORDER) == len(set(ORDER))
    assert rooms - {"recipes"} <= set(ORDER)
    assert set(ORDER) - rooms <= {"names", "reconstruction"}


def test_scikit_learn_is_imported_lazily() -> None:
    """scikit-learn costs a second at import; only who loads digits pays it."""
    for path in FILES:
        for module, is_top in _imports(path):
            assert not (is_top and module.split(".")[0] == "sklearn"), path


def test_settings_load_without_heavy_libraries() -> None:
    """Reading a space imports neither torch nor Ray, Optuna or MLflow."""
    code = (
        "import sys; from synq_tune.config.load import load_space; load_space('digits_w3a3');"
        "import synq_tune.commands.search;"
        "print([m for m in ('torch', 'ray', 'optuna', 'mlflow', 'onnx') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
