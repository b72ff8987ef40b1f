"""A table of SynQ's paper: its numbers, and what runs here for each of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError, model_validator

from synq_tune.config import Settings, yaml12
from synq_tune.config.load import SPACES_DIR
from synq_tune.config.settings import Text
from synq_tune.errors import SearchSpaceError, lookup

TABLES_DIR = SPACES_DIR / "tables"
Scale = Literal["small", "paper"]


class Column(Settings):
    """One network at one bit width."""

    paper: Text
    """The space of the paper's network and budget."""
    small: Text | None = None
    """The space that stands for it on a small machine; `null` = there is none."""


class PaperRow(Settings):
    """One method."""

    settings: dict[str, Any] | None = None
    """What it changes of a space, as a variant of `compare.py` does; `null` = it is not built."""
    small: dict[str, Any] | None = None
    """The same at the small scale, where that is something else."""
    over: Text | None = None
    """The row that its gain is over."""
    paper: dict[str, float] = {}
    """Top-1 in the paper, percent, by column."""


class PaperTable(Settings):
    """A whole table."""

    title: Text
    """What it compares."""
    columns: dict[str, Column]
    """By name."""
    rows: dict[str, PaperRow]
    """By the method's name."""

    def settings_at(self, scale: Scale) -> dict[str, dict[str, Any]]:
        """What each row that is built changes of a space, by the row's name."""
        found = {
            name: row.small if scale == "small" and row.small is not None else row.settings
            for name, row in self.rows.items()
        }
        return {name: settings for name, settings in found.items() if settings is not None}

    @model_validator(mode="after")
    def _names_are_known(self) -> PaperTable:
        for name, row in self.rows.items():
            for column in row.paper:
                lookup(f"column of {name}", column, self.columns)
            if row.over is not None:
                lookup(f"row that {name} is over", row.over, self.rows)
        return self


def table_names() -> list[str]:
    """`table1`, `table2`, …: those that can be asked for."""
    return sorted(path.stem for path in TABLES_DIR.glob("table*.yaml"))


def read_table(name: str) -> PaperTable:
    """The table of that name.

    Raises:
        InputError: there is none, or its file is damaged.
    """
    path: Path = TABLES_DIR / f"{lookup('table', name, table_names())}.yaml"
    try:
        return PaperTable.model_validate(yaml12.read(path))
    except ValidationError as error:
        raise SearchSpaceError(f"{path}: {error.errors()[0]['msg']}.") from error
