"""The table of the ranges that hyperparameters were searched in (SynQ, Table 10)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from synq_tune.config import Settings, StudySpec
from synq_tune.config.load import load_space
from synq_tune.config.settings import Text
from synq_tune.experiments.paper_table import Column, Scale
from synq_tune.text_table import markdown


class Range(Settings):
    """One hyperparameter."""

    paper: list[Any]
    """Its values in the paper."""
    field: Text | None = None
    """The setting that it is here, such as `finetune.tau`; `null` = none is known to be it."""


class PaperRanges(Settings):
    """The whole table."""

    title: Text
    """What it is."""
    column: Column
    """The space that is shown beside it."""
    ranges: dict[str, Range]
    """By the paper's symbol."""


def range_table(table: PaperRanges, scale: Scale) -> Iterator[str]:
    """The paper's ranges beside what our space searches, as Markdown; nothing is run."""
    spec = load_space((table.column.small if scale == "small" else None) or table.column.paper)
    heads = ("", "paper", "setting", f"here, {spec.name}")
    rows = (
        (s, _listed(r.paper), r.field or "", here(spec, r.field)) for s, r in table.ranges.items()
    )
    yield from (table.title, "", *markdown(heads, rows))


def here(spec: StudySpec, field: str | None) -> str:
    """What a space has of a setting: the values that it searches, or the one it fixes."""
    if field is None:
        return "no setting is known to be it"
    room, key = field.split(".")
    domain = spec.search.get(key if room == "finetune" else field)
    if domain is not None and domain.choice is not None:
        return _listed(domain.values)
    if domain is not None:
        return f"from {domain.values[0]:g} to {domain.values[-1]:g}"
    return f"{_text(getattr(getattr(spec, room), key))}, not searched"


def _listed(values: Any) -> str:
    return ", ".join(map(_text, values))


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
