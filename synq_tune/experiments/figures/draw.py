"""Make a figure of SynQ's paper: the runs or images it needs, its rows and its picture."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from synq_tune.errors import InputError
from synq_tune.experiments.compare_runs import Bench
from synq_tune.experiments.figures.bars import draw_bars, draw_overhead
from synq_tune.experiments.figures.errors import draw_errors
from synq_tune.experiments.figures.frequencies import draw_amplitude, draw_spectrum
from synq_tune.experiments.figures.maps import draw_maps
from synq_tune.experiments.figures.material import REAL, materials
from synq_tune.experiments.figures.recorded import Drawn, Runs
from synq_tune.experiments.figures.shown import draw_images
from synq_tune.experiments.figures.sweeps import draw_sweep
from synq_tune.experiments.paper_figure import IMAGE_KINDS, PaperFigure
from synq_tune.experiments.paper_table import Scale
from synq_tune.experiments.reproduce import Job, completed, run, run_facts
from synq_tune.notes import counted
from synq_tune.process.invocation import recorded_command_line
from synq_tune.report.paper.sheet import save_sheet
from synq_tune.store import atomic_path

_OF_IMAGES = {
    "amplitude": draw_amplitude,
    "spectrum": draw_spectrum,
    "images": draw_images,
    "errors": draw_errors,
}
_OF_ROWS = {"bars": draw_bars, "overhead": draw_overhead, "maps": draw_maps}


def make_figure(
    name: str,
    figure: PaperFigure,
    found: Sequence[Job],
    scale: Scale,
    num_seeds: int,
    folder: Path,
    store: Path,
    arguments: Sequence[str] = (),
    is_report: bool = False,
) -> Iterator[str]:
    """Make what is missing and draw; lines to print.

    Args:
        name: such as `figure5`, of the two files.
        found: its columns that run, see `jobs`.
        num_seeds: runs of each row, where students are trained.
        folder: gets NAME.png, NAME.jsonl, and a file of runs a column.
        store: where datasets and views are kept.
        arguments: of the command, for the caption.
        is_report: make no run; draw what was run before.

    Raises:
        InputError: a row does not fit its teacher or the data, or there is nothing to draw.
    """
    if figure.kind in IMAGE_KINDS:
        _check_may_run(name, is_report)
        bench = Bench(store)
        drawn = _OF_IMAGES[figure.kind](materials(found, bench), figure.parts)
        facts = _facts_of_images(figure, found, bench)
        facts.append(f"command: {recorded_command_line('reproduce.py', arguments)}")
    else:
        if not is_report:
            yield from run(figure, found, num_seeds, folder, store)
        runs = {job.column: completed(job, folder, figure.metric) for job in found}
        drawn, facts = _of_runs(figure, runs, scale), _facts_of_runs(runs, arguments)
    if not drawn[1]:
        raise InputError(
            f"`{name} has something to draw` must hold, but no run of it is recorded in {folder}. "
            "Run it without --report."
        )
    yield from _write(name, figure, drawn, folder, [figure.shows, *facts])


def _check_may_run(name: str, is_report: bool) -> None:
    if is_report:
        raise InputError(
            f"`{name} is drawn from runs` must hold with --report, but it is drawn from images. "
            "Leave --report out: the store keeps the images."
        )


def _of_runs(figure: PaperFigure, runs: Runs, scale: Scale) -> Drawn:
    if figure.kind == "sweep":
        return draw_sweep(figure, runs, scale)
    return _OF_ROWS[figure.kind](figure, runs)


def _facts_of_runs(runs: Runs, arguments: Sequence[str]) -> list[str]:
    """How the runs were made, for the caption; columns may share names of rows."""
    rows = {(column, name): found for column, mine in runs.items() for name, found in mine.items()}
    return run_facts(rows, arguments)


def _facts_of_images(figure: PaperFigure, found: Sequence[Job], bench: Bench) -> list[str]:
    """Teachers and seeds behind images, for the caption."""
    specs = [spec for job in found for spec in job.comparison.variants.values()]
    grounds = [bench.ground(spec) for spec in specs]
    teachers = {
        f"teacher: {ground.teacher.config.model}, fingerprint {ground.teacher.fingerprint[:12]}, "
        f"{ground.top1_report:.2f} % top-1": None
        for ground in grounds
    }
    seeds = sorted({spec.synthesis.seed for spec in specs})
    if set(figure.parts) == {REAL}:
        return list(teachers)
    return [*teachers, f"synthetic images: seed {', '.join(map(str, seeds))}"]


def _write(
    name: str, figure: PaperFigure, drawn: Drawn, folder: Path, caption: list[str]
) -> Iterator[str]:
    rows, plots = drawn
    folder.mkdir(parents=True, exist_ok=True)
    data, picture = folder / f"{name}.jsonl", folder / f"{name}.png"
    with atomic_path(data) as temporary:
        lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
        temporary.write_text("\n".join([*lines, ""]), encoding="utf-8")
    columns = 2 if figure.kind in ("spectrum", "errors", "images") else 3
    title = f"Figure {name.removeprefix('figure')}: {figure.title}"
    save_sheet(plots, picture, title, caption, columns)
    yield f"wrote {picture} and {data} ({counted(len(rows), 'row')})"
