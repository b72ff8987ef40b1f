"""Whatever is asked of a module of ours exists: a renamed function leaves no caller behind."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(p for d in ("synq_tune", "scripts", "tests") for p in (ROOT / d).rglob("*.py"))


def _module(name: str) -> ModuleType | None:
    """The module of that name, None where the name is no module."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            return None
        raise


def _imported(tree: ast.AST) -> Iterator[tuple[str, ModuleType]]:
    """(name in the file, module) of each module of ours that the file imports by name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "synq_tune":
            home = _module(node.module or "")
            for alias in node.names:
                is_name = hasattr(home, alias.name)
                child = f"{node.module}.{alias.name}"
                found = getattr(home, alias.name) if is_name else _module(child)
                assert is_name or found is not None, f"{child} is not there"
                if isinstance(found, ModuleType):
                    yield alias.asname or alias.name, found


def missing(text: str) -> list[str]:
    """`module.name` for each name that a file asks of a module of ours in vain."""
    tree = ast.parse(text)
    modules = dict(_imported(tree))
    rebound = {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)} | {
        n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    return [
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in modules
        and node.value.id not in rebound
        and not hasattr(modules[node.value.id], node.attr)
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_name_asked_of_a_module_exists(path: Path) -> None:
    """Also in functions that no other test reaches."""
    assert missing(path.read_text()) == []


def test_a_name_that_was_renamed_is_found() -> None:
    """The check itself can fail."""
    text = "from synq_tune import own_code\n\ndef f():\n    return own_code.load_object('x')\n"
    assert missing(text) == ["own_code.load_object"]
