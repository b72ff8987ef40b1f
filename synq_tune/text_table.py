"""Rows of text as a table: columns aligned for a terminal, or Markdown."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

Cells = Sequence[str]
"""One row."""


def aligned(
    rows: Iterable[Cells], right: Collection[int] = (), at_least: Sequence[int] = ()
) -> list[str]:
    """Columns as wide as their widest cell, two spaces apart; no line ends in spaces.

    Args:
        rows: all of one length, the headings first if there are any.
        right: columns, from 0, whose cells end at the right, as numbers do.
        at_least: width of each column that no table of its kind falls below; none where empty.

    Raises:
        ValueError: the rows differ in length.
    """
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if at_least:
        widths = [max(pair) for pair in zip(widths, at_least, strict=True)]
    sides = [">" if column in right else "<" for column in range(len(widths))]
    return [
        "  ".join(f"{c:{s}{w}}" for c, s, w in zip(row, sides, widths, strict=True)).rstrip()
        for row in rows
    ]


def markdown(heads: Cells, rows: Iterable[Cells]) -> Iterator[str]:
    """A Markdown table, line by line as the rows come."""
    for cells in (heads, ["---"] * len(heads)):
        yield markdown_row(cells)
    yield from map(markdown_row, rows)


def markdown_row(cells: Iterable[str]) -> str:
    """One line of a Markdown table; a `|` in a cell does not end it."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
