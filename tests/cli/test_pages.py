"""The generated pages say what the code says, and the code says something of everything."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from synq_tune.cli.main import COMMANDS
from synq_tune.cli.pages import DOCS_DIR, PAGES, write_pages
from synq_tune.config import StudySpec
from synq_tune.config.load import SPACES_DIR, names_in

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_as_the_code_says(name: str) -> None:
    """Whoever changes a space, a setting or an argument runs `make docs`."""
    assert (DOCS_DIR / name).read_text(encoding="utf-8") == PAGES[name](), "run make docs"


@pytest.mark.long
def test_a_page_that_is_behind_is_written_again(tmp_path: Path) -> None:
    """What is right is not touched."""
    assert write_pages(tmp_path) == list(PAGES)
    page = tmp_path / "spaces.md"
    page.write_text(page.read_text().replace("W3A3", "W2A2"))
    assert write_pages(tmp_path) == ["spaces.md"] and write_pages(tmp_path) == []
    assert page.read_text() == (DOCS_DIR / "spaces.md").read_text()


def test_pages_need_nothing_heavy() -> None:
    """They are made in a second or two."""
    code = (
        "import sys; from synq_tune.cli.pages import PAGES; [made() for made in PAGES.values()]\n"
        "print([m for m in ('torch', 'ray', 'optuna', 'mlflow', 'onnx') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_every_space_setting_and_command_is_there() -> None:
    """And every setting has a sentence of its own."""
    spaces, settings, commands = (PAGES[f"{n}.md"]() for n in ("spaces", "settings", "commands"))
    assert all(spaces.count(f"| `{name}` |") == 1 for name in names_in(SPACES_DIR))
    assert re.findall(r"^## (\w+)$", commands, flags=re.MULTILINE) == list(COMMANDS)
    schema = StudySpec.model_json_schema(by_alias=True)
    shapes = [schema, *schema["$defs"].values()]
    keys = [key for shape in shapes for key in shape["properties"]]
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", settings, flags=re.MULTILINE)
    assert sorted(key for key, _ in rows) == sorted(keys)
    assert all(meaning.strip() for _, meaning in rows)
    for section in ("teacher.weights", "study.confirm", "search.KEY", "synthesis"):
        assert f"## `{section}`" in settings


def test_links_of_the_pages_lead_somewhere() -> None:
    """Files by their place in docs/, headings of the page by their name."""
    for name, made in PAGES.items():
        text = made()
        for place in re.findall(r"\]\(([^)]+)\)", text):
            file, _, anchor = place.partition("#")
            assert not file or (DOCS_DIR / file).is_file(), (name, place)
            assert file or f"\n## {anchor}\n" in text, (name, place)


def test_bare_make_prints_its_targets() -> None:
    """One line each; nothing is installed or run."""
    # Below another make, as in `make test`, this one would say which folder it enters.
    command = ["make", "--no-print-directory"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    targets = [line.split()[1] for line in run.stdout.splitlines()]
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert sorted(targets) == sorted(phony[1].split())
