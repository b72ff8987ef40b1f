"""How the search went: every trial, in several views."""

from __future__ import annotations

from synq_tune.config.metrics import MEASURED
from synq_tune.notes import counted
from synq_tune.process.invocation import command_line
from synq_tune.redact import redact_uri
from synq_tune.report import figures
from synq_tune.report.blocks import (
    Block,
    Caution,
    Code,
    Fold,
    Heading,
    Plot,
    Prose,
    Section,
    Table,
    Tiles,
)
from synq_tune.report.material import Material
from synq_tune.report.numbers import value
from synq_tune.study.state import Run

FEW = 20
"""Completed trials below which importances are mostly chance."""
_LOSSES = 4
"""Losses that are shown at most."""


def search(material: Material) -> Section:
    """History, learning curves, parallel coordinates, slices, importances, timeline, table."""
    title, runs = "The search", material.searched
    if not runs:
        return Section("search", title, "No trial has begun.")
    parts = (_history, _curves, _parallel, _slices, _importances, _timeline, _table)
    blocks = [block for part in parts for block in part(material)]
    return Section("search", title, _lead(material), blocks)


def _lead(material: Material) -> str:
    done = len(_completed(material))
    return (
        f"{counted(done, 'trial')} of {len(material.searched)} ran to the end. Every point below is a "
        "trial: move the pointer over it, or tap it, to read its settings."
    )


def _completed(material: Material) -> list[Run]:
    metric = material.metric
    return [r for r in material.searched if r.state == "completed" and metric in r.metrics]


def _history(material: Material) -> list[Block]:
    figure = figures.history(material.searched, material.metric, material.best)
    says = f"{material.metric} of each trial in the order in which they were proposed"
    return [
        Heading("Trial by trial"),
        Prose("Hollow circles were stopped early: the scheduler gave their time to better ones."),
        Plot(figure, says),
    ]


def _curves(material: Material) -> list[Block]:
    runs, best = material.searched, material.best
    curves = figures.learning_curves(runs, material.metric, best)
    heading = Heading("While they learned")
    if curves is None:
        return [heading, Prose("Each trial was measured once only, so there are no curves.")]
    says = f"{material.metric} by epoch, one line a trial"
    blocks = [heading, Prose("The best trial is orange. Grey ones were stopped or diverged.")]
    tiles = [
        Plot(figure, f"{name} loss by epoch, one line a trial", 240)
        for name in _loss_names(runs)[:_LOSSES]
        if (figure := figures.loss_curves(runs, name, best)) is not None
    ]
    losses = [Fold("The training losses", [Tiles(tiles, 320)])] if tiles else []
    return [*blocks, Plot(curves, says), *losses]


def _loss_names(runs: list[Run]) -> list[str]:
    return list(
        dict.fromkeys(name for run in runs for row in run.history for name in row["losses"])
    )


def _parallel(material: Material) -> list[Block]:
    domains = material.state.spec.search
    if len(_completed(material)) < 2 or len(domains) < 2:
        return []
    figure = figures.parallel(material.searched, domains, material.metric, material.best)
    says = "Each completed trial as a line through the values of its parameters"
    return [
        Heading("All parameters at once"),
        Prose("A line is a completed trial. The darker it is, the better. The best is orange."),
        Plot(figure, says, 380, min_width=110 * len(domains)),
    ]


def _slices(material: Material) -> list[Block]:
    domains = material.state.spec.search
    if not domains or not any(material.metric in run.metrics for run in material.searched):
        return []
    tiles = [
        Plot(
            figures.one_parameter(material.searched, key, domain, material.metric, material.best),
            f"{material.metric} by {key}",
            230,
        )
        for key, domain in domains.items()
    ]
    return [Heading("One parameter at a time"), Tiles(tiles, 280)]


def _importances(material: Material) -> list[Block]:
    heading, done = Heading("Which parameters mattered"), len(_completed(material))
    if material.importances is None:
        again = command_line("report.py", material.folder)
        return [
            heading,
            Prose("A search that is interrupted does not wait for it. To add it:"),
            Code(again),
        ]
    if not material.importances:
        return [heading, Prose("It takes two completed trials that differ to say.")]
    blocks: list[Block] = [
        heading,
        Prose(
            f"How much of the variation of {material.metric} a parameter explains alone or with "
            f"others (fANOVA), from n = {counted(done, 'completed trial')}."
        ),
    ]
    if done < FEW:
        blocks.append(Caution(f"Fewer than {FEW} trials completed: the order may be chance."))
    height = 90 + 30 * len(material.importances)
    says = "Share of the metric's variation by parameter"
    return [*blocks, Plot(figures.importance_bars(dict(material.importances)), says, height)]


def _timeline(material: Material) -> list[Block]:
    figure = figures.timeline(list(material.state.runs.values()))
    if figure is None:
        return [Heading("When they ran"), Prose("No run has ended.")]
    lanes = len(figure["layout"]["yaxis"]["tickvals"])
    return [
        Heading("When they ran"),
        Prose("Runs that were on their way at the same time stand below each other."),
        Plot(figure, "When each run began and ended", 130 + 34 * lanes),
    ]


def _table(material: Material) -> list[Block]:
    runs, best = material.searched, material.best
    metrics = [m for m in MEASURED.values() if any(m.name in run.metrics for run in runs)]
    keys = list(dict.fromkeys(key for run in runs for key in run.params))
    heads = ["trial", "state", *(m.heading for m in metrics), "epochs", "seconds", *keys, "said"]
    last_number = 4 + len(metrics)
    numeric = {0, *range(2, last_number)}
    numeric |= {last_number + n for n, key in enumerate(keys) if _is_number(runs, key)}
    rows = [
        [
            str(run.number),
            run.state,
            *(_measured(run, m.name, m.text_format) for m in metrics),
            str(run.epochs_run),
            f"{run.seconds:.1f}",
            *(value(run.params[key]) if key in run.params else "" for key in keys),
            redact_uri(run.error or ""),
        ]
        for run in runs
    ]
    marked = next((n for n, run in enumerate(runs) if run is best), None)
    table = Table(heads, rows, frozenset(numeric), True, marked)
    return [Heading("Every trial"), Prose("Click a heading to sort by it."), table]


def _is_number(runs: list[Run], key: str) -> bool:
    return all(
        isinstance(run.params.get(key, 0), (int, float))
        and not isinstance(run.params.get(key), bool)
        for run in runs
    )


def _measured(run: Run, name: str, form: str) -> str:
    return f"{run.metrics[name]:{form}}" if name in run.metrics else ""
