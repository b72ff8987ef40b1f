"""A comparison's page shows what its table says, a row a variant, and names what is sure."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from synq_tune.cli.compare import _without_output
from synq_tune.experiments.compare_page import lead, write_compare_page
from synq_tune.experiments.compare_table import gains, report
from synq_tune.report.forest import Effect, forest_plot

ARGUMENTS = ["--space", "digits_w3a3", "--variants", "v.yaml", "--output", "t.jsonl"]


def _rows(name: str, values: list[float | None]) -> list[dict[str, Any]]:
    return [
        {
            "variant": name, "seed": seed, "settings": {"val_data": "digits"}, "settings_sha": name,
            "state": "diverged" if value is None else "completed", "top1_report": value,
            "teacher": {"model": "net", "fingerprint": "ab" * 32, "top1_report": 99.0},
            "labelled": {"choose": 448, "report": 449}, "dataset": None, "updates": 12,
            "seconds": 1.0, "machine": "a machine", "versions": {"torch": "2"},
        }
        for seed, value in enumerate(values)
    ]  # fmt: skip


CHOSEN = {
    "base": _rows("base", [90.0, 91.0, 92.0]),
    "lsq <b>": _rows("lsq <b>", [92.0, 93.1, 93.9]),
    "worse": _rows("worse", [80.0, 81.5, 81.0]),
    "open": _rows("open", [90.5, 90.0, 92.5]),
    "one pair": _rows("one pair", [None, 95.0, None]),
    "none": _rows("none", [None, None, None]),
}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "deep" / "table.html"
    write_compare_page("base", CHOSEN, ARGUMENTS, path)
    return path.read_text("utf-8")


def _figure(page: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json">(.*?)</script>', page)
    return json.loads(html.unescape(text))


def test_a_row_a_variant_with_its_mean_and_interval(page: str) -> None:
    """The numbers of the Markdown table, from top to bottom in the order of the file."""
    figure, found = _figure(page), gains("base", CHOSEN)
    order = figure["layout"]["yaxis"]["categoryarray"][::-1]
    assert order == ["lsq &lt;b&gt;", "worse", "open", "one pair", "none"]
    drawn = {row["y"][0]: row for row in figure["data"]}
    assert set(drawn) == set(order) - {"none"}
    for name, key in (("lsq <b>", "lsq &lt;b&gt;"), ("worse", "worse"), ("open", "open")):
        assert drawn[key]["x"] == [found[name].mean]
        assert drawn[key]["error_x"]["array"] == [found[name].half]
    assert "error_x" not in drawn["one pair"]
    colors = {key: row["marker"]["line"]["color"] for key, row in drawn.items()}
    assert len({colors["lsq &lt;b&gt;"], colors["worse"], colors["open"]}) == 3


def test_the_page_and_the_table_agree(page: str) -> None:
    """Each gain of the table stands in the page, and the command that makes it."""
    text = "\n".join(report("base", CHOSEN, ARGUMENTS))
    for gain in re.findall(r"[+-]\d+\.\d\d", text):
        assert gain in html.unescape(page)
    assert "compare" in page and "--variants v.yaml" in page


def test_names_are_no_markup_and_nothing_is_loaded(page: str) -> None:
    """What the user calls a variant is text; the page asks the network for nothing."""
    assert "lsq <b>" not in page
    own = page[: page.index("<script>")] + page[page.rindex("<footer>") - 20000 :]
    assert not re.search(r'(?:src|href)="https?:', own)
    assert "default-src 'none'" in page


@pytest.mark.parametrize(
    ("effect", "verdict"),
    [
        (Effect("x", 1.0, 0.5), "better"),
        (Effect("x", -1.0, 0.5), "worse"),
        (Effect("x", 1.0, 1.0), "open"),
        (Effect("x", 1.0, None), "open"),
        (Effect("x", None), "open"),
    ],
)
def test_only_a_whole_interval_decides(effect: Effect, verdict: str) -> None:
    """One that reaches zero is open, and so is a single pair."""
    assert effect.verdict == verdict


def test_the_first_sentence_claims_no_more_than_the_intervals() -> None:
    """The best of those that are better for sure; otherwise that none is."""
    sure, likely = Effect("a", 1.0, 0.5, "+1.00 points"), Effect("b", 3.0, 4.0, "+3.00 points")
    assert lead("base", [sure, likely]).startswith("a gains most of those whose interval lies")
    assert "1 of 2 variants" in lead("base", [sure, likely])
    assert lead("base", [likely]) == "No variant has an interval that lies above base."


def test_a_baseline_alone_has_no_plot(tmp_path: Path) -> None:
    """There is nothing to compare it with; the table is there."""
    path = tmp_path / "alone.html"
    write_compare_page("base", {"base": CHOSEN["base"]}, ARGUMENTS, path)
    text = path.read_text("utf-8")
    assert '<script type="application/json">' not in text and "91.00" in text


def test_rows_leave_room_for_each_variant() -> None:
    """A plot of forty variants is taller than one of two."""
    effects = [Effect(str(number), 0.0, 1.0) for number in range(40)]
    assert forest_plot(effects, "base", "top-1").height > forest_plot(effects[:2], "b", "t").height


def test_the_command_is_that_of_the_table() -> None:
    """Where it was shown is no part of it."""
    shown = [*ARGUMENTS, "--report", "--page", "table.html"]
    assert _without_output(shown) == ARGUMENTS
    assert _without_output([*ARGUMENTS, "--page=table.html"]) == ARGUMENTS
