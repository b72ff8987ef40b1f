"""A comparison as a page: a forest plot of what each variant gains, and the numbers behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

from synq_tune import store
from synq_tune.experiments.compare_table import (
    Gain,
    Row,
    all_rows,
    facts_of,
    gains,
    legend,
    same,
)
from synq_tune.notes import counted
from synq_tune.process.invocation import recorded_command_line
from synq_tune.report.blocks import Code, Heading, Prose, Section, Table
from synq_tune.report.forest import Effect, forest_plot
from synq_tune.report.page import render_page

_HOW = (
    "A dot is the mean difference of runs with the same seed. Its line is the 95 % interval over "
    "the seeds. Green lies above zero with all of its interval, red below; grey is open. A hollow "
    "dot is one pair of runs, which has no interval."
)


def write_compare_page(
    baseline: str, chosen: Mapping[str, list[Row]], arguments: Sequence[str], path: Path
) -> None:
    """Write the page, atomically; it loads nothing.

    Args:
        baseline: a key of `chosen`.
        chosen: the rows of each variant.
        arguments: of the command.
        path: of the HTML file; replaced.

    Raises:
        OSError: the file cannot be written.
    """
    found = gains(baseline, chosen)
    sections = [_gained(baseline, chosen, found), _made(chosen, arguments)]
    about = f"{counted(len(chosen), 'variant')}, each with the same seeds as {baseline}"
    text = render_page("Comparison", path.stem, about, sections)
    path.parent.mkdir(parents=True, exist_ok=True)
    store.write_bytes(path, text)


def _gained(
    baseline: str, chosen: Mapping[str, list[Row]], found: Mapping[str, Gain | None]
) -> Section:
    effects = [_effect(name, gain) for name, gain in found.items() if name != baseline]
    table = Table(
        ("variant", "runs", "diverged", "mean top-1 %", "±", "gain", "from", "to", "pairs"),
        [_cells(name, rows, found[name]) for name, rows in chosen.items()],
        numeric=frozenset(range(1, 9)),
        is_sortable=True,
        marked=list(chosen).index(baseline),
    )
    plot = [forest_plot(effects, baseline, "top-1"), Prose(_HOW)] if effects else []
    notes = [Prose(line) for line in (*legend(all_rows(chosen)), *same(chosen))]
    blocks = [*plot, Heading("In numbers"), table, *notes]
    return Section("gain", "What each variant gains", lead(baseline, effects), blocks)


def lead(baseline: str, effects: Sequence[Effect]) -> str:
    """The sentence to read if only one is read."""
    sure = [effect for effect in effects if effect.verdict == "better"]
    if sure:
        best = max(sure, key=lambda effect: effect.mean or 0.0)
        return (
            f"{best.name} gains most of those whose interval lies above zero: {best.note}. "
            f"Those are {len(sure)} of {counted(len(effects), 'variant')}."
        )
    return f"No variant has an interval that lies above {baseline}."


def _effect(name: str, gain: Gain | None) -> Effect:
    if gain is None:
        return Effect(name, None)
    return Effect(name, gain.mean, gain.half, _in_words(gain))


def _in_words(gain: Gain) -> str:
    if gain.half is None:
        return f"{gain.mean:+.2f} points, one pair"
    low, high = gain.mean - gain.half, gain.mean + gain.half
    return f"{gain.mean:+.2f} points, {low:+.2f} to {high:+.2f}, {counted(gain.pairs, 'pair')}"


def _cells(name: str, rows: Sequence[Row], gain: Gain | None) -> tuple[str, ...]:
    done = [row["top1_report"] for row in rows if row["state"] == "completed"]
    lost = sum(row["state"] == "diverged" for row in rows)
    mean = f"{fmean(done):.2f}" if done else ""
    spread = f"{stdev(done):.2f}" if len(done) > 1 else ""
    return name, str(len(done)), str(lost), mean, spread, *_gain_cells(gain)


def _gain_cells(gain: Gain | None) -> tuple[str, str, str, str]:
    if gain is None:
        return "", "", "", ""
    if gain.half is None:
        return f"{gain.mean:+.2f}", "", "", str(gain.pairs)
    ends = gain.mean - gain.half, gain.mean + gain.half
    return f"{gain.mean:+.2f}", f"{ends[0]:+.2f}", f"{ends[1]:+.2f}", str(gain.pairs)


def _made(chosen: Mapping[str, list[Row]], arguments: Sequence[str]) -> Section:
    facts = facts_of(all_rows(chosen))
    blocks = [
        Table(("", ""), list(facts.items())),
        Heading("Make it again"),
        Code(recorded_command_line("compare.py", arguments)),
    ]
    return Section("made", "What it was measured with", "", blocks)
