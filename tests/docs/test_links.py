"""Pages: short where they lead, linked where they point."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
INDICES = [ROOT / "README.md", ROOT / "docs/results/README.md"]
MOST_LINES = 200


def _headings(page: Path) -> set[str]:
    """Anchors as GitHub makes them: lower case, spaces to hyphens, no punctuation."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _links(page: Path) -> list[tuple[str, str]]:
    """(file, anchor) of the links that stay in the repository."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    inside = [target for target in targets if "://" not in target]
    return [tuple(target.partition("#")[::2]) for target in inside]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every file exists, and every anchor is a heading of it."""
    for name, anchor in _links(page):
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {name}"
        assert not anchor or anchor in _headings(target), f"{page.name}: {name}#{anchor}"


def test_every_page_is_linked_from_the_readme() -> None:
    """A page that nothing leads to is not read."""
    linked = {
        (page.parent / name).resolve() for page in INDICES for name, _ in _links(page) if name
    }
    assert set(PAGES[1:]) <= linked


def test_the_readme_is_short() -> None:
    """What has no room here has a page."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_LINES


@pytest.mark.ray
def test_the_readme_s_snippet_runs_an_exported_model(finished: tuple[Path, str]) -> None:
    """As printed, in the folder of a study, and it names a class."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=finished[0], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\[\d\]\n", done.stdout)
