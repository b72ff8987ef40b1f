"""Run a table of SynQ's paper, row by row, and put what it says beside what was measured.

Every number is a comparison's run (`experiments.compare`): the same seeds and labelled images for all
rows of a column, appended to a file as it ends. A second call goes on where the first was stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synq_tune.config.cost import trial_updates
from synq_tune.config.load import SPACES_DIR
from synq_tune.errors import InputError, lookup
from synq_tune.experiments.compare_table import (
    NOTHING,
    Row,
    gain_text,
    paired,
    read_recorded,
    spread,
)
from synq_tune.experiments.paper_table import PaperTable, Scale
from synq_tune.experiments.variants import Comparison, merge
from synq_tune.text_table import markdown

NOT_GIVEN = "not given"
"""Labelled images of a plan that nobody has named yet."""


@dataclass(frozen=True)
class Job:
    """A column that can be run."""

    column: str
    comparison: Comparison


def jobs(
    table: PaperTable,
    scale: Scale,
    wanted_rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    assignments: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> list[Job]:
    """What of a table runs at a scale.

    Args:
        wanted_rows: names of rows; none = all.
        columns: names of columns; none = all.
        assignments, flags: over every space, as in `load_space`.

    Raises:
        InputError: a name is unknown, nothing runs, or settings are wrong.
    """
    for kind, names, known in (
        ("row", wanted_rows, table.rows),
        ("column", columns, table.columns),
    ):
        for name in names:
            lookup(kind, name, known)
    settings = {
        name: tree
        for name, tree in table.settings_at(scale).items()
        if not wanted_rows or name in wanted_rows
    }
    spaces = {
        name: getattr(column, scale)
        for name, column in table.columns.items()
        if not columns or name in columns
    }
    found = [
        Job(name, merge(next(iter(settings)), settings, SPACES_DIR, space, assignments, flags))
        for name, space in spaces.items()
        if space is not None and settings
    ]
    if not found:
        raise InputError(
            f"`something of the table runs at this scale` must hold, but got --scale {scale} with rows "
            f"{', '.join(wanted_rows) or 'all'}. Leave out --rows, or take another scale."
        )
    return found


def plan(table: PaperTable, found: Sequence[Job], num_seeds: int) -> Iterator[str]:
    """What would run, what it needs and what it costs; and what is not built."""
    yield f"{table.title}: {num_seeds} seeds of each"
    for job in found:
        specs = job.comparison.variants
        first = next(iter(specs.values()))
        weights = first.teacher.weights
        needs = weights.file or weights.package or weights.url or "--weights FILE"
        images = first.study.val_data
        images = "--val-data SRC" if images == NOT_GIVEN else images
        yield ""
        yield f"{job.column}: {first.name}; needs {needs} and {images}"
        for name, spec in specs.items():
            parts = spec.reconstruct.iterations if spec.reconstruct.is_on else 0
            work = f"{trial_updates(spec):,} updates of {spec.finetune.batch_size}"
            more = f", {parts:,} a part of the reconstruction" if parts else ""
            yield f"  {name}: {num_seeds} × {work}{more}"
    absent = [name for name, row in table.rows.items() if row.settings is None]
    if absent:
        yield f"\nnot built: {', '.join(absent)}"


def run(found: Sequence[Job], num_seeds: int, folder: Path, store: Path) -> Iterator[str]:
    """Make the runs that are missing, a column after the other; a line for each.

    Args:
        folder: gets one file of rows for each column.
        store: where datasets and views are kept.

    Raises:
        InputError: a row does not fit its teacher or the data.
    """
    # torch takes a second to import: a plan and a report need none.
    from synq_tune.experiments.compare import checked, make_missing, progress_line
    from synq_tune.experiments.compare_runs import Bench

    bench = Bench(store)
    for job in found:
        output = rows_file(folder, job.column)
        shas = checked(job.comparison, bench)
        for _, row in make_missing(job.comparison, shas, num_seeds, output, bench):
            yield f"{job.column}  {progress_line(row)}"


def rows_file(folder: Path, column: str) -> Path:
    """Where the rows of a column are."""
    return folder / f"{column.replace(' ', '_')}.jsonl"


def result(table: PaperTable, found: Sequence[Job], folder: Path) -> Iterator[str]:
    """A Markdown table a column: the paper's number beside ours, its gain beside ours."""
    for job in found:
        rows = _rows(job, folder)
        full = [row["teacher"]["top1_report"] for mine in rows.values() for row in mine][:1]
        yield f"### {job.column}"
        yield ""
        heads = ("", "paper (%)", "here (%)", "runs", "gain in the paper", "gain here [95 %]")
        lines = [_line(table, job.column, name, rows) for name in table.rows]
        whole = [("full precision", NOTHING, f"{full[0]:.2f}", "1", "", "")] if full else []
        yield from markdown(heads, [*whole, *lines])
        yield ""


def _rows(job: Job, folder: Path) -> dict[str, list[Row]]:
    """Completed rows of each method, of its settings of today."""
    file = rows_file(folder, job.column)
    recorded = read_recorded(job.comparison, file) if file.is_file() else {}
    return {
        name: [row for row in rows if row["state"] == "completed"]
        for name, rows in recorded.items()
    }


def _line(table: PaperTable, column: str, name: str, rows: dict[str, list[Row]]) -> tuple[str, ...]:
    row, mine = table.rows[name], rows.get(name, [])
    values = [r["top1_report"] for r in mine]
    here = "not built" if row.settings is None else spread(values)
    printed = row.paper.get(column)
    over = table.rows[row.over].paper.get(column) if row.over else None
    in_paper = "" if printed is None or over is None else f"{printed - over:+.2f}"
    gain = paired(mine, rows.get(row.over, [])) if row.over else None
    return (
        name,
        NOTHING if printed is None else f"{printed:.2f}",
        here,
        str(len(values)),
        in_paper,
        "" if gain is None else gain_text(gain),
    )
