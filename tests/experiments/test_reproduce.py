"""Tables of the paper: what is printed there, what runs here, and the two side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

from synq_tune.config.load import RECIPES_DIR, names_in
from synq_tune.errors import InputError
from synq_tune.experiments.paper import item_names, read_item
from synq_tune.experiments.paper_table import PaperTable
from synq_tune.experiments.reproduce import NOT_GIVEN, jobs, plan, result, rows_file, run
from tests.experiments.small_runs import SMALL

PLANNED = [n for n in item_names() if isinstance(read_item(n), PaperTable)]


def test_every_table_and_figure_can_be_asked_for() -> None:
    """Ten tables and thirteen figures, in the paper's order."""
    tables = [f"table{number}" for number in range(1, 11)]
    assert item_names() == tables + [f"figure{number}" for number in range(1, 14)]
    assert set(item_names()) - set(PLANNED) == {"table4", "table10", "figure4"}


@pytest.mark.parametrize("name", PLANNED)
@pytest.mark.parametrize("scale", ["small", "paper"])
def test_a_table_can_be_planned(name: str, scale: str) -> None:
    """Every row that is built makes a valid study, and what is not built is said."""
    table = read_item(name)
    found = jobs(table, scale, flags={"study": {"val_data": NOT_GIVEN}})
    lines = "\n".join(plan(table, found, 3))
    for row_name, row in table.rows.items():
        assert row_name in lines
        recipe = (row.settings or {}).get("recipe", "synq")
        assert recipe in names_in(RECIPES_DIR)
    assert ("not built" in lines) == any(row.settings is None for row in table.rows.values())


def test_numbers_are_the_papers() -> None:
    """Gains that the paper prints follow from the numbers."""
    seven, eight = read_item("table7").rows, read_item("table8").rows
    gains = {
        "GDFQ": 5.34,
        "Qimera": 31.17,
        "AdaDFQ": 2.46,
        "IntraQ": 4.93,
        "HAST": 8.11,
        "TexQ": 1.30,
    }
    for name, gain in gains.items():
        printed = seven[f"{name} + SynQ"].paper["W3A3"] - seven[name].paper["W3A3"]
        assert printed == pytest.approx(gain)
    for name, average in (("Genie", 63.90), ("Genie + SynQ", 64.54)):
        values = eight[name].paper.values()
        assert sum(values) / len(values) == pytest.approx(average, abs=0.01)


TABLE = PaperTable.model_validate({
    "title": "two rows", "columns": {"W8A8": {"paper": "digits_w8a8", "small": "digits_w8a8"}},
    "rows": {
        "plain": {"settings": {"finetune": {"lambda_cam": 0}}, "paper": {"W8A8": 90.0}},
        "more": {"settings": {}, "over": "plain", "paper": {"W8A8": 92.5}},
        "absent": {"over": "plain", "paper": {"W8A8": 91.0}},
    },
})  # fmt: skip


@pytest.mark.long
def test_rows_run_once_and_stand_beside_the_paper(tmp_path: Path) -> None:
    """A second call makes no run; a stopped one goes on; the gain is over the row it names."""
    flags = {"study": {"val_data": "digits"}}
    found = jobs(TABLE, "small", assignments=SMALL, flags=flags)
    first = list(run(TABLE, found, 1, tmp_path, tmp_path / "store"))
    assert len(first) == 2 and not list(run(TABLE, found, 1, tmp_path, tmp_path / "store"))
    file = rows_file(tmp_path, "W8A8")
    whole = file.read_text()
    file.write_text(whole.splitlines(keepends=True)[0])
    assert len(list(run(TABLE, found, 1, tmp_path, tmp_path / "store"))) == 1
    lines = list(result(TABLE, found, tmp_path))
    assert any(line.startswith("| absent | 91.00 | not built | 0 | +1.00 |") for line in lines)
    (more,) = (line for line in lines if line.startswith("| more |"))
    assert "| +2.50 | " in more and "1 pair" in more
    assert any(line.startswith("| full precision | – | 9") for line in lines)


def test_what_cannot_be_asked_for_is_said() -> None:
    """Unknown names, rows that are not built, and columns without a small stand-in."""
    flags = {"study": {"val_data": NOT_GIVEN}}
    with pytest.raises(ValueError, match="Unknown row"):
        jobs(TABLE, "small", ["mor"], flags=flags)
    with pytest.raises(InputError, match="something of the table runs"):
        jobs(TABLE, "small", ["absent"], flags=flags)
    with pytest.raises(InputError, match="table77"):
        read_item("table77")
