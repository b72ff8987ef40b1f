"""Run a table of SynQ's paper, row by row, and put what it says beside what was measured.

Every number is a comparison's run (`experiments.compare`): the same seeds and labelled images for all
rows of a column, appended to a file as it ends. A second call goes on where the first was stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synq_tune.config import StudySpec
from synq_tune.config.cost import trial_updates
from synq_tune.config.load import SPACES_DIR, parse_assignment
from synq_tune.errors import InputError, lookup
from synq_tune.experiments.compare_table import (
    NOTHING,
    Row,
    facts_of,
    gain_text,
    paired,
    read_recorded,
    spread,
)
from synq_tune.experiments.paper_figure import IMAGE_KINDS, PaperFigure
from synq_tune.experiments.paper_table import Column, Metric, Noise, PaperTable, Scale
from synq_tune.experiments.variants import Comparison, merge
from synq_tune.notes import counted
from synq_tune.process.invocation import recorded_command_line
from synq_tune.text_table import markdown

NOT_GIVEN = "not given"
"""Labelled images of a plan that nobody has named yet."""


@dataclass(frozen=True)
class Job:
    """A column that can be run."""

    column: str
    comparison: Comparison
    noise: Noise | None = None


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
        ("row", wanted_rows, table.row_names(scale)),
        ("column", columns, table.columns),
    ):
        for name in names:
            lookup(kind, name, known)
    _check_swept(table, assignments)
    settings = {
        name: tree
        for name, tree in table.settings_at(scale).items()
        if not wanted_rows or name in wanted_rows
    }
    chosen = {n: c for n, c in table.columns.items() if not columns or n in columns}
    given = (SPACES_DIR, assignments, flags)
    found = [
        _job(name, column, settings, getattr(column, scale), *given)
        for name, column in chosen.items()
        if getattr(column, scale) is not None and settings
    ]
    if not found:
        raise InputError(
            f"`something of the table runs at this scale` must hold, but got --scale {scale} with rows "
            f"{', '.join(wanted_rows) or 'all'}. Leave out --rows, or take another scale."
        )
    return found


def _check_swept(table: PaperTable, assignments: Sequence[str]) -> None:
    """Assignments lie over rows: one of a swept setting would make all points of a curve one."""
    panels = table.panels if isinstance(table, PaperFigure) else []
    swept = {key for panel in panels for key in panel.sweep}
    for text in assignments:
        room, value = next(iter(parse_assignment(text).items()))
        given = {f"{room}.{key}": v for key, v in value.items()} if isinstance(value, dict) else {}
        for key in swept & given.keys():
            raise InputError(
                f"`--set leaves {key} to the figure` must hold, but got {key}={given[key]!r}. The "
                "figure runs its values: leave it out."
            )


def _job(
    name: str,
    column: Column,
    settings: dict[str, dict[str, Any]],
    space: str,
    path: Path,
    assignments: Sequence[str],
    flags: Mapping[str, Any] | None,
) -> Job:
    first = next(iter(settings))
    settings = {row: _under(column.settings, tree) for row, tree in settings.items()}
    return Job(name, merge(first, settings, path, space, assignments, flags), column.noise)


def _under(common: dict[str, dict[str, Any]], tree: dict[str, Any]) -> dict[str, Any]:
    """A row's settings with a column's below them."""
    rooms = {room: {**given, **tree.get(room, {})} for room, given in common.items()}
    return {**tree, **rooms}


def plan(table: PaperTable, found: Sequence[Job], num_seeds: int) -> Iterator[str]:
    """What would run, what it needs and what it costs; and what is not built."""
    is_trained = not isinstance(table, PaperFigure) or table.kind not in IMAGE_KINDS
    says = f"{counted(num_seeds, 'seed')} of each" if is_trained else "no student is trained"
    yield f"{table.title}: {says}"
    if isinstance(table, PaperFigure):
        yield table.shows
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
            yield f"  {name}: {_training(spec, num_seeds) if is_trained else _making(spec, table)}"
    absent = {name: row.why_not for name, row in table.rows.items() if row.settings is None}
    if absent:
        named = (f"{name} ({why})" if why else name for name, why in absent.items())
        yield f"\nnot built: {', '.join(named)}"


def _training(spec: StudySpec, num_seeds: int) -> str:
    """What the trials of a row cost."""
    parts = spec.reconstruct.iterations if spec.reconstruct.is_on else 0
    more = f", {parts:,} a part of the reconstruction" if parts else ""
    return f"{num_seeds} × {trial_updates(spec):,} updates of {spec.finetune.batch_size}{more}"


def _making(spec: StudySpec, figure: PaperFigure) -> str:
    """What the images of a row cost."""
    if set(figure.parts) == {"real"}:
        return "labelled images alone"
    made = spec.synthesis
    count = made.num_images + made.num_holdout
    return f"{count:,} synthetic images of {made.iterations:,} updates, unless the store has them"


def run(
    table: PaperTable, found: Sequence[Job], num_seeds: int, folder: Path, store: Path
) -> Iterator[str]:
    """Make the runs that are missing, a column after the other; a line for each.

    Args:
        table: says what is measured.
        folder: gets one file of rows for each column.
        store: where datasets and views are kept.

    Raises:
        InputError: a row does not fit its teacher or the data.
    """
    # torch takes a second to import: a plan and a report need none.
    from synq_tune.experiments.compare import checked, make_missing, progress_line
    from synq_tune.experiments.compare_runs import Bench
    from synq_tune.experiments.saliency import measure_saliency

    bench = Bench(store, measure_saliency if table.metric == "cam_kl" else None)
    for job in found:
        bench.noise = job.noise
        output = rows_file(folder, job.column, table.metric)
        shas = checked(job.comparison, bench)
        for _, row in make_missing(job.comparison, shas, num_seeds, output, bench):
            yield f"{job.column}  {progress_line(row)}"


def rows_file(folder: Path, column: str, metric: Metric = "top1_report") -> Path:
    """Where the rows of a column are; tables and figures that measure the same share them."""
    more = "" if metric == "top1_report" else f"_{metric}"
    return folder / f"{column.replace(' ', '_')}{more}.jsonl"


def result(
    table: PaperTable, found: Sequence[Job], folder: Path, arguments: Sequence[str] = ()
) -> Iterator[str]:
    """A Markdown table a column: the paper's number beside ours, its gain beside ours; and below
    it what it was measured with, and the command, whose arguments these are."""
    for job in found:
        rows = completed(job, folder, table.metric)
        unit, gain = UNITS[table.metric]
        measured = (f"paper ({unit})", f"here ({unit})", "runs")
        heads = ("", *measured, f"{gain} in the paper", f"{gain} here [95 %]")
        lines = [_line(table, job.column, name, rows) for name in table.rows]
        whole = _full_precision(rows) if table.metric == "top1_report" else []
        yield f"### {job.column}"
        yield ""
        yield from markdown(heads, [*whole, *lines])
        yield ""
        yield from (f"- {fact}" for fact in run_facts(rows, arguments))
        yield ""


def run_facts(rows: Mapping[Any, list[Row]], arguments: Sequence[str]) -> list[str]:
    """What completed rows were measured with; nothing where there is none."""
    every = [row for mine in rows.values() for row in mine]
    if not every:
        return []
    seeds = sorted({row["seed"] for row in every})
    made = f"{'seeds' if len(seeds) > 1 else 'seed'} {', '.join(map(str, seeds))}"
    facts = facts_of(every)
    kept = [f"{key}: {facts[key]}" for key in ("teacher", "labelled images", "machine", "versions")]
    command = recorded_command_line("reproduce.py", arguments)
    return [f"{counted(len(every), 'run')}, {made}", *kept, f"command: {command}"]


def _full_precision(rows: Mapping[str, list[Row]]) -> list[tuple[str, ...]]:
    full = [row["teacher"]["top1_report"] for mine in rows.values() for row in mine][:1]
    return [("full precision", NOTHING, f"{value:.2f}", "1", "", "") for value in full]


UNITS: dict[Metric, tuple[str, str]] = {
    "top1_report": ("%", "gain"),
    "cam_kl": ("10⁻² nats", "change"),
}
"""The unit of each metric, and the word for what a row adds to another."""


def completed(job: Job, folder: Path, metric: Metric) -> dict[str, list[Row]]:
    """Completed rows of each method, of its settings of today."""
    file = rows_file(folder, job.column, metric)
    recorded = read_recorded(job.comparison, file) if file.is_file() else {}
    return {
        name: [row for row in rows if row["state"] == "completed"]
        for name, rows in recorded.items()
    }


def _line(table: PaperTable, column: str, name: str, rows: dict[str, list[Row]]) -> tuple[str, ...]:
    row, mine = table.rows[name], rows.get(name, [])
    values = [r[table.metric] for r in mine]
    here = "not built" if row.settings is None else spread(values)
    printed = row.paper.get(column)
    over = table.rows[row.over].paper.get(column) if row.over else None
    in_paper = "" if printed is None or over is None else f"{printed - over:+.2f}"
    gain = paired(mine, rows.get(row.over, []), table.metric) if row.over else None
    return (
        name,
        NOTHING if printed is None else f"{printed:.2f}",
        here,
        str(len(values)),
        in_paper,
        "" if gain is None else gain_text(gain),
    )
