"""The table of what runs where names every file that is written and every runtime that is tried."""

from __future__ import annotations

from pathlib import Path

import pytest

from synq_tune.export import FILE_NAMES
from synq_tune.export.engines import ENGINES

TEXT = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text()
TABLE = TEXT.split("## What runs where")[1].split("##")[0]


@pytest.mark.parametrize("name", FILE_NAMES.values())
def test_every_file_has_a_row(name: str) -> None:
    """As `FILE_NAMES` spells it."""
    assert f"| `{name}` |" in TABLE


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.name)
def test_every_runtime_has_a_row_of_its_files(engine: object) -> None:
    """A runtime that the probes try stands in a row of a file that it opens."""
    rows = [row for row in TABLE.splitlines() if engine.name.split(",")[0] in row]
    assert any(f"{engine.suffix}`" in row for row in rows)
