"""What a check of a GPU found, a row at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass

from synq_tune.errors import first_line
from synq_tune.text_table import aligned


@dataclass(frozen=True)
class Row:
    """One number, or why there is none."""

    part: str
    what: str
    value: float | None
    unit: str = ""
    is_right: bool = True
    """False: it is off by more than it may be, or it could not be measured."""
    note: str = ""


def guarded(part: str, what: str, measure: Callable[[], Iterable[Row]]) -> Iterator[Row]:
    """The rows of one measurement; what it raises becomes a row, so that the others still run."""
    try:
        yield from measure()
    except Exception as error:  # a visit to a device is short: each part stands alone
        yield Row(part, what, None, is_right=False, note=first_line(error))


def table(rows: Iterable[Row]) -> list[str]:
    """Lines to print."""
    cells = [
        (row.part, row.what, "-" if row.value is None else f"{row.value:.4g}", row.unit,
         "" if row.is_right else "WRONG", row.note)
        for row in rows
    ]  # fmt: skip
    return aligned([("part", "what", "value", "unit", "", "note"), *cells], right=(2,))


def plain(rows: Iterable[Row]) -> list[dict[str, object]]:
    """The same as plain values."""
    return [asdict(row) for row in rows]
