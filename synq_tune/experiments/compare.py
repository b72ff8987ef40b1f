"""Compare variants of a space with paired seeds.

A run is one (variant, seed). Its trial's seed is `trial_seed(seed, 0)` whatever the variant, and
orders the batches; the labelled images are the same for all runs, the synthetic dataset for all
runs of one variant. Rows are appended to a file of JSON lines seed by seed, all variants within:
what an interrupted comparison leaves is paired, and runs that stand there are not made again. A row
holds

    variant, seed, settings, settings_sha, teacher, labelled, dataset, top1 (all labelled images),
    top1_report, top1_choose (each half), agreement, holdout_kl, holdout_mse, updates, images_seen,
    epochs, seconds, state (completed | diverged), error, machine, versions, time

Accuracies are percentages after the last epoch; no epoch is chosen. A row that diverged has null
for what was not measured. Seconds are those of quantizing, calibrating, training and measuring;
making dataset and views is not among them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from synq_tune.experiments.compare_runs import Bench
from synq_tune.experiments.compare_table import Row, read_rows, report, rows_of
from synq_tune.experiments.variants import Comparison
from synq_tune.notes import counted


def compare(
    comparison: Comparison, num_seeds: int, output: Path, store: Path, arguments: Sequence[str] = ()
) -> Iterator[str]:
    """Make the runs that are missing; lines to print: one per run, then the table.

    Args:
        comparison: its variants have labelled images.
        num_seeds: each variant runs with the seeds 0, 1, … below this.
        output: the rows, as JSON lines; appended to.
        store: where datasets and views are kept.
        arguments: of the command, for the report.

    Raises:
        InputError: a variant does not fit its teacher or the data, or `output` is damaged; nothing
            was run.
    """
    read_rows(output)
    bench = Bench(store)
    shas = checked(comparison, bench)
    total = num_seeds * len(shas)
    for number, row in make_missing(comparison, shas, num_seeds, output, bench):
        yield f"{number} of {total}  {progress_line(row)}"
    rows = read_rows(output)
    chosen = {name: rows_of(name, sha, rows) for name, sha in shas.items()}
    yield from ("", *report(comparison.baseline, chosen, arguments))


def checked(comparison: Comparison, bench: Bench) -> dict[str, str]:
    """The address of each variant's settings, once all of them are known to run.

    Raises:
        InputError: one does not fit its teacher or the data.
    """
    for spec in comparison.variants.values():
        bench.check(spec)
    return {name: bench.settings_sha(spec) for name, spec in comparison.variants.items()}


def make_missing(
    comparison: Comparison, shas: dict[str, str], num_seeds: int, output: Path, bench: Bench
) -> Iterator[tuple[int, Row]]:
    """Make and append what `output` lacks; yield each new row with its number, from 1.

    The row of a variant that was renamed, or of another with the same settings, is copied.
    """
    known = {(row["settings_sha"], row["seed"]): row for row in read_rows(output)}
    present = {(row["variant"], row["settings_sha"], row["seed"]) for row in read_rows(output)}
    order = [(seed, name) for seed in range(num_seeds) for name in comparison.variants]
    for number, (seed, name) in enumerate(order, start=1):
        sha = shas[name]
        if (name, sha, seed) in present:
            continue
        row = known.get((sha, seed)) or _make(bench, comparison, name, seed, sha)
        known[sha, seed] = row = {**row, "variant": name}
        _append(output, row)
        yield number, row


def _make(bench: Bench, comparison: Comparison, name: str, seed: int, sha: str) -> Row:
    result = bench.run(comparison.variants[name], seed)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"variant": name, "seed": seed, "settings_sha": sha, **result, "time": now}


def _append(path: Path, row: Row) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def progress_line(row: Row) -> str:
    """One finished run."""
    head = f"seed {row['seed']}  {row['variant']:20}"
    if row["state"] == "diverged":
        return f"{head}  diverged: {row['error']}"
    return (
        f"{head}  top1 {row['top1_report']:.2f}  agreement {row['agreement']:.2f}  "
        f"{counted(row['updates'], 'update')}  {row['seconds']:.1f} s"
    )
