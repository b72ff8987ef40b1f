"""What the trials are worth against what they cost, where they differ in width."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from synq_tune.config.metrics import COSTS, MEASURED
from synq_tune.notes import counted
from synq_tune.process.invocation import command_line
from synq_tune.report.blocks import Block, Code, Plot, Prose, Section, Table
from synq_tune.report.front_figure import axis_title, front_figure
from synq_tune.report.material import Material
from synq_tune.report.numbers import value
from synq_tune.study.exported import milliseconds_of_best
from synq_tune.study.front_table import widths_of
from synq_tune.study.state import Run
from synq_tune.study.summary import Point, front, judged, mean_point, objectives, points_of_runs

_MEANS = (
    "Trials that were repeated stand at the mean of their seeds, and only those are on the front. The "
    "others ran once: a grey point above the line may be luck."
)


def pareto_front(material: Material) -> Section | None:
    """A plot for each further objective, and the front's points as a table.

    None where trials do not differ in what they cost and one number alone is looked for.
    """
    names = _names(material)
    if len(names) < 2:
        return None
    title, points = "Pareto front", _points(material, names)
    if not points:
        return Section("front", title, "No trial has completed, so there is no front yet.")
    blocks: list[Block] = [_plot(material, points, names, name) for name in names[1:]]
    blocks += [Prose(_MEANS)] if any(point.seeds > 1 for point in points) else []
    blocks += [_table(material, points, names), *_export(material, points)]
    return Section("front", title, _lead(material, points, names), blocks)


def _names(material: Material) -> tuple[str, ...]:
    """The study's objectives; of a study with one, that and the size where it differs."""
    names = objectives(material.state)
    sizes = {run.metrics["size"] for run in _completed(material) if "size" in run.metrics}
    return (*names, "size") if len(names) == 1 and len(sizes) > 1 else names


def _completed(material: Material) -> list[Run]:
    return [run for run in material.searched if run.state == "completed"]


def _points(material: Material, names: tuple[str, ...]) -> list[Point]:
    is_asked = material.state.spec.study.has_front
    return front(material.state) if is_asked else points_of_runs(material.state, names)


def _lead(material: Material, points: list[Point], names: tuple[str, ...]) -> str:
    lead = (
        f"{counted(len(points), 'trial')} of {len(_completed(material))} that completed: no other "
        f"trial is at least as good in {' and '.join(names)} and better in one."
    )
    if not material.state.spec.study.has_front or material.best is None:
        return lead
    return (
        f"{lead} Exported is the knee, trial {material.best.number}: each objective is brought to "
        "0 to 1 over the front, and the knee has the largest sum."
    )


def _plot(material: Material, points: list[Point], names: tuple[str, ...], across: str) -> Plot:
    both = (names[0], across)
    about, trials = partial(_about, material, names), _trials(material, both)
    shown = front_figure(trials, points, material.best, both, about, len(names) == 2)
    return Plot(shown, f"{axis_title(names[0])} of each trial against {axis_title(across)}")


def _trials(material: Material, both: tuple[str, str]) -> list[Point]:
    """Every trial that measured both; one that was repeated stands at its means."""
    runs = [run for run in _completed(material) if all(name in run.metrics for name in both)]
    means = {group.run.key: mean_point(group, both) for group in judged(material.state)}
    single = {run.key: Point(run, {name: run.metrics[name] for name in both}) for run in runs}
    return [means.get(key, point) for key, point in single.items()]


def _about(material: Material, names: tuple[str, ...], run: Run) -> list[str]:
    """A trial, what it measured and costs, its widths and its settings."""
    measured = [n for n in dict.fromkeys((*names, *COSTS)) if n in run.metrics]
    lines = [f"{run.key}, {widths_of(material.state, run)}"]
    lines += [f"{name} {run.metrics[name]:{MEASURED[name].text_format}}" for name in measured]
    time = _milliseconds(material, run)
    lines += [f"{time} ms an image"] if time else []
    return [*lines, *(f"{key} = {value(v)}" for key, v in run.params.items())]


def _milliseconds(material: Material, run: Run) -> str:
    """Measured where the trial was exported, else empty."""
    best, time = material.state.stages.best, milliseconds_of_best(material.state)
    return f"{time:.2f}" if best is not None and best.key == run.key and time else ""


def _table(material: Material, points: list[Point], names: tuple[str, ...]) -> Table:
    shown = list(dict.fromkeys((*names, *COSTS)))
    heads = ["trial", *(MEASURED[n].heading for n in shown), "ms", "seeds", "widths"]
    rows = [
        [
            str(point.run.number),
            *(_number(name, {**point.run.metrics, **point.values}) for name in shown),
            _milliseconds(material, point.run),
            str(point.seeds),
            widths_of(material.state, point.run),
        ]
        for point in points
    ]
    numeric = frozenset(range(len(heads) - 1))
    marked = next((n for n, p in enumerate(points) if p.run is material.best), None)
    return Table(heads, rows, numeric, marked=marked)


def _number(name: str, metrics: Mapping[str, float]) -> str:
    return f"{metrics[name]:{MEASURED[name].text_format}}" if name in metrics else ""


def _export(material: Material, points: list[Point]) -> list[Block]:
    """How to get another point; nothing where there is none."""
    best = material.best
    others = [point.run for point in points if best is None or point.run.key != best.key]
    if not others:
        return []
    number = str(others[0].number)
    line = command_line(
        "export.py", "--study", ".", "--trial", number, "--output", f"trial-{number}"
    )
    says = (
        "Milliseconds are measured at the export. To export another point, in the study's folder:"
    )
    return [Prose(says), Code(line)]
