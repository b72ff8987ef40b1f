"""The table of a comparison: what each variant gains over the baseline, and how sure that is."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from synq_tune.errors import InputError
from synq_tune.experiments.variants import Comparison, filled, settings_of
from synq_tune.notes import counted
from synq_tune.process.invocation import recorded_command_line
from synq_tune.store import content_address
from synq_tune.text_table import markdown

Row = dict[str, Any]
"""One run as it stands in the file; see `synq_tune.experiments.compare`."""

NOTHING = "–"


@dataclass(frozen=True)
class Gain:
    """Mean difference of paired values, with its 95 % interval."""

    mean: float
    half: float | None
    """Half the interval's width; None for a single pair."""
    pairs: int


def paired_gain(pairs: Sequence[tuple[float, float]]) -> Gain | None:
    """Student's t on the differences of (value, baseline's value); None without any pair."""
    if not pairs:
        return None
    differences = [value - baseline for value, baseline in pairs]
    count = len(differences)
    if count == 1:
        return Gain(differences[0], None, 1)
    from scipy.special import stdtrit  # comes with scikit-learn

    quantile = float(stdtrit(count - 1, 0.975))
    return Gain(fmean(differences), quantile * stdev(differences) / math.sqrt(count), count)


def read_rows(path: Path) -> list[Row]:
    """The rows so far; none where there is no file.

    Raises:
        InputError: a line is no row, as a power cut may leave the last one.
    """
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [_row(path, number, line) for number, line in enumerate(lines, start=1)]


def _row(path: Path, number: int, line: str) -> Row:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        row = None
    if (
        not isinstance(row, dict)
        or not {"variant", "seed", "settings_sha", "settings"} <= row.keys()
    ):
        raise InputError(
            f"{path}, line {number}: `the line is one run` must hold, but got {line[:40]!r}. "
            "Delete the line: the run is made again."
        )
    return row


def read_recorded(comparison: Comparison, path: Path) -> dict[str, list[Row]]:
    """The recorded rows of each variant as it is set today, by seed; loads no teacher.

    Where they were made with several teachers, those of the last one.

    Raises:
        InputError: the file is missing or damaged.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: `the rows are recorded` must hold, but there is no such file. "
            "Run without --report first."
        )
    rows, chosen = read_rows(path), {}
    for name, spec in comparison.variants.items():
        wanted = content_address(settings_of(spec))
        mine = [r for r in rows if r["variant"] == name and _address(r) == wanted]
        chosen[name] = rows_of(name, mine[-1]["settings_sha"], mine) if mine else []
    return chosen


def rows_of(name: str, settings_sha: str, rows: Iterable[Row]) -> list[Row]:
    """A variant's rows made with these settings, in the order of seeds, the last of each seed."""
    mine = (r for r in rows if (r["variant"], r["settings_sha"]) == (name, settings_sha))
    by_seed = {row["seed"]: row for row in mine}
    return [by_seed[seed] for seed in sorted(by_seed)]


def _address(row: Row) -> str:
    return content_address(filled(row["settings"]))


def report(baseline: str, chosen: Mapping[str, list[Row]], arguments: Sequence[str]) -> list[str]:
    """Markdown: the table, then what it was measured with.

    Args:
        baseline: a key of `chosen`.
        chosen: the rows of each variant.
        arguments: of the command.
    """
    rows = all_rows(chosen)
    head = (
        "variant",
        "runs",
        "top-1 (%)",
        f"gain over {baseline} [95 %]",
        "diverged",
        "updates per run",
        "seconds per run",
    )
    gained = gains(baseline, chosen)
    measured = [_variant(name, mine, gained[name]) for name, mine in chosen.items()]
    lines = markdown(head, [*_full_precision(rows), *measured])
    return [*lines, "", *legend(rows), *same(chosen), "", *_about(rows, arguments)]


def all_rows(chosen: Mapping[str, list[Row]]) -> list[Row]:
    """The rows of every variant."""
    return [row for mine in chosen.values() for row in mine]


def gains(baseline: str, chosen: Mapping[str, list[Row]]) -> dict[str, Gain | None]:
    """What each variant gains over the baseline, in points of top-1 on the reporting half.

    None for the baseline itself, and where no seed completed in both.
    """
    done = {name: _done(rows) for name, rows in chosen.items()}
    against = {name: () if name == baseline else done.get(baseline, ()) for name in done}
    return {name: paired(rows, against[name]) for name, rows in done.items()}


def _done(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row["state"] == "completed"]


def _full_precision(rows: Iterable[Row]) -> list[list[str]]:
    """One line per teacher."""
    teachers = {row["teacher"]["fingerprint"]: row["teacher"] for row in rows}
    several = len(teachers) > 1
    return [
        [
            f"full precision{', ' + t['model'] if several else ''}",
            NOTHING,
            f"{t['top1_report']:.2f}",
            *[NOTHING] * 4,
        ]
        for t in teachers.values()
    ]


def _variant(name: str, rows: list[Row], gain: Gain | None) -> list[str]:
    """One line: variant, runs, top-1, gain, diverged, updates, seconds."""
    done = _done(rows)
    diverged = sum(row["state"] == "diverged" for row in rows)
    updates = sorted({row["updates"] for row in done})
    seconds = f"{fmean(r['seconds'] for r in done):.1f}" if done else NOTHING
    return [
        name,
        str(len(done)),
        spread([row["top1_report"] for row in done]),
        gain_text(gain),
        str(diverged),
        ", ".join(map(str, updates)) or NOTHING,
        seconds,
    ]


def paired(
    done: Iterable[Row], baseline: Iterable[Row], metric: str = "top1_report"
) -> Gain | None:
    """The gain of completed rows over a baseline's of the same seeds; None without a pair."""
    return paired_gain(_pairs(done, baseline, metric))


def _pairs(done: Iterable[Row], baseline: Iterable[Row], metric: str) -> list[tuple[float, float]]:
    reference = {r["seed"]: r[metric] for r in baseline if r["state"] == "completed"}
    return [(r[metric], reference[r["seed"]]) for r in done if r["seed"] in reference]


def spread(values: list[float]) -> str:
    """Mean ± standard deviation; a single value as it is."""
    if len(values) < 2:
        return f"{values[0]:.2f}" if values else NOTHING
    return f"{fmean(values):.2f} ± {stdev(values):.2f}"


def gain_text(gain: Gain | None) -> str:
    """Mean, interval and number of pairs."""
    if gain is None:
        return NOTHING
    if gain.half is None:
        return f"{gain.mean:+.2f}, 1 pair"
    low, high = gain.mean - gain.half, gain.mean + gain.half
    return f"{gain.mean:+.2f} [{low:+.2f}, {high:+.2f}], {counted(gain.pairs, 'pair')}"


def legend(rows: Iterable[Row]) -> list[str]:
    """How the numbers are to be read."""
    report_count = _distinct(rows, lambda r: str(r["labelled"]["report"]))
    return [
        f"top-1: percent of the reporting half ({report_count} images) after the last epoch, mean ± "
        "standard deviation of the completed runs.",
        "gain: mean difference of runs with the same seed, with Student's t interval over the seeds; "
        "it says nothing about other images.",
    ]


def same(chosen: Mapping[str, list[Row]]) -> list[str]:
    """Variants that are one: `--set` may have taken away what told them apart."""
    names: dict[str, list[str]] = {}
    for name, rows in chosen.items():
        for sha in {row["settings_sha"] for row in rows}:
            names.setdefault(sha, []).append(name)
    return [
        f"same settings: {', '.join(n)} (--set lies over the variants)."
        for n in names.values()
        if len(n) > 1
    ]


def _about(rows: Iterable[Row], arguments: Sequence[str]) -> list[str]:
    command = recorded_command_line("compare.py", arguments)
    facts = {"command": f"`{command}`", **facts_of(list(rows))}
    return [f"- {key}: {value}" for key, value in facts.items()]


def facts_of(rows: Sequence[Row]) -> dict[str, str]:
    """What the rows were measured with."""
    return {
        "teacher": _distinct(rows, _teacher),
        "labelled images": _distinct(rows, _labelled),
        "synthetic images": _distinct(rows, _dataset),
        "machine": _distinct(rows, lambda r: r["machine"]),
        "versions": _distinct(
            rows, lambda r: ", ".join(f"{k} {v}" for k, v in r["versions"].items())
        ),
    }


def _distinct(rows: Iterable[Row], text: Callable[[Row], str | None]) -> str:
    """Every text the rows have, in their order."""
    return "; ".join(dict.fromkeys(filter(None, map(text, rows)))) or NOTHING


def _teacher(row: Row) -> str:
    return f"{row['teacher']['model']}, fingerprint {row['teacher']['fingerprint'][:12]}"


def _labelled(row: Row) -> str:
    halves, source = row["labelled"], row["settings"]["val_data"]
    return f"{source}: {halves['choose']} not used for this table, {halves['report']} reported on"


def _dataset(row: Row) -> str | None:
    dataset = row["dataset"]
    if dataset is None:
        return None
    counts = f"{dataset['num_images']} to train on, {dataset['num_holdout']} held out"
    return f"{dataset['method']}, {counts}, address {dataset['address'][:12]}"
