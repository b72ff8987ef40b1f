"""Messages count one thing as one thing, and say what they got."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from synq_tune.notes import counted

PACKAGE = Path(__file__).parents[1] / "synq_tune"
SEVERAL = ("{FEW} trials", "{confirm.top} trials")
"""Never one: a constant, and a number that is looked at before."""


@pytest.mark.parametrize(
    ("number", "noun", "said"),
    [(0, ("epoch",), "0 epochs"), (1, ("epoch",), "1 epoch"), (2, ("epoch",), "2 epochs"),
     (1000, ("image",), "1,000 images"), (1, ("class", "classes"), "1 class"),
     (3, ("class", "classes"), "3 classes"), (2, ("entry", "entries"), "2 entries")],
)  # fmt: skip
def test_a_count_has_its_plural(number: int, noun: tuple[str, ...], said: str) -> None:
    """English ones, thousands apart."""
    assert counted(number, *noun) == said


def _found(pattern: str) -> list[str]:
    """Where the package has it: `file: text`."""
    return [
        f"{path.relative_to(PACKAGE)}: {text}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for text in re.findall(pattern, path.read_text())
    ]


def test_an_invariant_is_never_the_whole_of_a_message() -> None:
    """What was got, and what to do, come behind it."""
    assert _found(r".{0,60}` must hold\.") == []


def test_what_can_be_one_has_no_fixed_plural() -> None:
    """`1 epochs` reads like a machine's text; `counted` knows better."""
    found = _found(r"\{[^{}]*\} (?:epochs|trials|files|labels|pairs|entries|rows|lines)\b")
    assert [text for text in found if not text.endswith(SEVERAL)] == []
