"""Tables of text."""

from __future__ import annotations

import pytest

from synq_tune.text_table import aligned, markdown

ROWS = [("name", "top1"), ("a", "9.50"), ("longer", "100.00")]


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    """Two spaces apart, and nothing behind the last."""
    assert aligned(ROWS) == ["name    top1", "a       9.50", "longer  100.00"]


def test_numbers_end_at_the_right() -> None:
    """Their points stand below each other."""
    assert aligned(ROWS, right={1}) == ["name      top1", "a         9.50", "longer  100.00"]


def test_a_column_may_have_a_least_width() -> None:
    """Tables of one kind then look alike; a longer cell still has its room."""
    assert aligned([("a", "b", "")], right=[1], at_least=(3, 4, 9)) == ["a       b"]
    assert aligned([("abcd", "b", "c")], at_least=(3, 1, 1)) == ["abcd  b  c"]


def test_rows_of_different_lengths_are_refused() -> None:
    """A cell would stand below a heading that is not its own."""
    with pytest.raises(ValueError):
        aligned([("a", "b"), ("c",)])
    assert aligned([]) == []


def test_markdown_escapes_what_ends_a_cell() -> None:
    """A bar in a name is no border."""
    assert list(markdown(("variant", "top-1"), [("a|b", "9.5")])) == [
        "| variant | top-1 |",
        "| --- | --- |",
        "| a\\|b | 9.5 |",
    ]


def test_markdown_comes_line_by_line() -> None:
    """A row may take minutes to measure: those before it are shown already."""

    def rows() -> object:
        yield ("a",)
        raise AssertionError("not asked for yet")

    lines = markdown(("variant",), rows())
    assert [next(lines) for _ in range(3)] == ["| variant |", "| --- |", "| a |"]
