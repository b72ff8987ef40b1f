"""Pages of `docs/` that the code writes: spaces, settings and commands. None of it loads torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from synq_tune.cli.pages.commands import commands_page
from synq_tune.cli.pages.settings import settings_page
from synq_tune.cli.pages.spaces import spaces_page
from synq_tune.store import atomic_path

PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands_page,
    "settings.md": settings_page,
    "spaces.md": spaces_page,
}
"""File in `docs/` → what makes its text."""

DOCS_DIR = Path(__file__).parents[3] / "docs"


def write_pages(folder: Path = DOCS_DIR) -> list[str]:
    """Write every page that is not as the code says; returns their names."""
    changed = []
    for name, made in PAGES.items():
        path, text = folder / name, made()
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            with atomic_path(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
            changed.append(name)
    return changed
