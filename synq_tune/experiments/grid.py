"""A recorded grid: every configuration of a small space trained once per seed, kept as a table.

Searches are replayed against it in milliseconds (`synq_tune.experiments.lookup`). A file of JSON
lines: first the head {format, command, machine, versions, spec}, then one row per trial

    params (of the grid) or baseline (a name of BASELINES), seed, state, history [{epoch, metrics}],
    seconds

in the order they were made. The metrics are those a study's ledger has at the evaluated epochs.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import ValidationError

from synq_tune.config import FineTune, StudySpec
from synq_tune.config.load import with_recipe
from synq_tune.errors import InputError, NonFiniteError
from synq_tune.notes import counted
from synq_tune.process.invocation import recorded_command_line
from synq_tune.search.sampler import configuration_key
from synq_tune.seeds import trial_seed
from synq_tune.study.ledger import package_versions

FORMAT = 1
BASELINES = ("paper", "recipe", "calibrated")
"""The paper's defaults, the recipe's own values, calibration without training."""
_DIGITS = {"top1": 4, "agreement": 4}

Row = dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """A table as it was read."""

    path: Path
    head: dict[str, Any]
    spec: StudySpec
    rows: dict[tuple[str, int], Row]
    """By (`configuration_key` of the parameters or name of the baseline, seed)."""
    seeds: tuple[int, ...]
    """Those for which every configuration has a row."""

    def row(self, key: str, seed: int) -> Row:
        """The trial of a configuration or baseline with one of `seeds`."""
        return self.rows[key, seed]

    def value(self, key: str, metric: str = "top1") -> float | None:
        """Mean of a metric after the last epoch, over the seeds that completed; None if none
        did."""
        rows = [self.rows[key, seed] for seed in self.seeds if (key, seed) in self.rows]
        done = [row["history"][-1]["metrics"] for row in rows if row["state"] == "completed"]
        return fmean(metrics[metric] for metrics in done) if done else None

    @property
    def keys(self) -> list[str]:
        """Every configuration of the space."""
        return [configuration_key(params) for params in configurations(self.spec)]

    @property
    def best(self) -> float:
        """The highest mean top1 of a configuration, percent."""
        return max(value for key in self.keys if (value := self.value(key)) is not None)


def configurations(spec: StudySpec) -> list[dict[str, Any]]:
    """Every configuration of a space of choices.

    Raises:
        InputError: a searched key is an interval.
    """
    for key, domain in spec.search.items():
        if domain.choice is None:
            raise InputError(
                f"search.{key}: `a grid has choices only` must hold, but got "
                f"{list(domain.values)}. Pass --set 'search.{key}={{choice: [...]}}'."
            )
    options = itertools.product(*(domain.values for domain in spec.search.values()))
    return [dict(zip(spec.search, values, strict=True)) for values in options]


def read_grid(path: Path) -> Grid:
    """Read a recorded table.

    Raises:
        InputError: the file is missing, damaged, of another format, or no seed is complete.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: `the table is recorded` must hold, but there is no such file. "
            "Record it with --record."
        )
    head, rows = _read(path)
    grid = Grid(path, head, _spec_of(path, head), rows, ())
    seeds = sorted({seed for _, seed in rows})
    complete = tuple(s for s in seeds if all((key, s) in rows for key in grid.keys))
    if not complete:
        raise InputError(
            f"{path}: `every configuration is recorded` must hold, but "
            f"{counted(len(rows), 'row')} cover no seed. Go on with --record."
        )
    return Grid(path, head, grid.spec, rows, complete)


def _read(path: Path) -> tuple[dict[str, Any], dict[tuple[str, int], Row]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    records = [_parse(path, number, line) for number, line in enumerate(lines, start=1)]
    if not records or records[0].get("format") != FORMAT:
        found = f"format={records[0].get('format')!r}" if records else "an empty file"
        raise InputError(
            f"{path}: `line 1 is the head of a grid, format {FORMAT}` must hold, but got {found}. "
            "Record the table anew with --record."
        )
    return records[0], {(_key(row), row["seed"]): row for row in records[1:]}


def _parse(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        record = None
    if not isinstance(record, dict) or not (number == 1 or {"seed", "history"} <= record.keys()):
        raise InputError(
            f"{path}, line {number}: `the line is one trial` must hold, but got {line[:40]!r}. "
            "Delete the line: the trial is made again by --record."
        )
    return record


def _key(row: Row) -> str:
    return row["baseline"] if "baseline" in row else configuration_key(row["params"])


def _spec_of(path: Path, head: dict[str, Any]) -> StudySpec:
    try:
        return StudySpec.model_validate(head["spec"])
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise InputError(f"{path}: line 1, spec.{where}: {error.errors()[0]['msg']}.") from error


def record_grid(
    spec: StudySpec, path: Path, store: Path, num_seeds: int = 1, arguments: Sequence[str] = ()
) -> Iterator[str]:
    """Train what the table lacks, seed by seed; a line per trial.

    Args:
        spec: a space of choices with `study.val_data`; epochs are evaluated as in a study.
        path: of the table; appended to.
        store: where the dataset is kept.
        num_seeds: trials per configuration, with the seeds 0, 1, …
        arguments: of the command, for the head.

    Raises:
        InputError: the space cannot run, or the file is the table of another one.
    """
    if spec.study.val_data is None:
        raise InputError(
            "study.val_data: `labelled images are given` must hold, but got val_data=None. "
            "Pass --val-data."
        )
    planned = _planned(spec, num_seeds)
    assets = _load(spec, store)
    done = _begin(spec, path, arguments, assets.device)
    for number, (label, seed, config) in enumerate(planned, start=1):
        row = {**label, "seed": seed}
        if (_key(row), seed) in done:
            continue
        row |= _train(assets, config, trial_seed(seed, number))
        _append(path, row)
        last = row["history"][-1] if row["history"] else {}
        yield f"{number} of {len(planned)}  {label} {row['state']} {last}"


def _planned(spec: StudySpec, num_seeds: int) -> list[tuple[Row, int, FineTune]]:
    """(how a row is named, seed, settings) of every trial; baselines first."""
    paper = with_recipe(spec, "synq_paper").finetune
    own = (paper, spec.finetune, spec.finetune.model_copy(update={"epochs": 0}))
    named = [({"baseline": n}, config) for n, config in zip(BASELINES, own, strict=True)]
    grid = [({"params": params}, spec.trial_config(params)) for params in configurations(spec)]
    return [(label, s, config) for s in range(num_seeds) for label, config in (*named, *grid)]


def _load(spec: StudySpec, store: Path) -> Any:
    from synq_tune.synthesis.dataset import synthesize
    from synq_tune.trial.assets import choose_device, load_assets
    from synq_tune.trial.requirements import prepare

    device = choose_device()
    dataset, _ = synthesize(prepare(spec, device, store).teacher, spec, store)
    return load_assets(spec, dataset.path, store, device)


def _begin(
    spec: StudySpec, path: Path, arguments: Sequence[str], device: Any
) -> dict[tuple[str, int], Row]:
    """The rows there are; a new file gets its head."""
    from synq_tune.experiments.compare_runs import machine

    if path.is_file():
        head, rows = _read(path)
        # Compared as settings: fields that were added since have their defaults.
        if _spec_of(path, head) != spec:
            raise InputError(
                f"{path}: `the table is of the same space` must hold, but its settings differ. "
                "Record into another file."
            )
        return rows
    path.parent.mkdir(parents=True, exist_ok=True)
    command = recorded_command_line("regret.py", arguments)
    _append(
        path,
        {
            "format": FORMAT,
            "command": command,
            "machine": machine(device),
            "versions": package_versions(),
            "spec": spec.model_dump(mode="json", by_alias=True),
        },
    )
    return {}


def _train(assets: Any, config: FineTune, seed: int) -> Row:
    from synq_tune.trial.trial import Trial

    history, state, started = [], "completed", time.perf_counter()
    try:
        for row in Trial(assets, config, seed).run():
            metrics = {k: round(v, _DIGITS.get(k, 6)) for k, v in row.metrics.items()}
            history.append({"epoch": row.epoch, "metrics": metrics})
    except NonFiniteError:
        state = "diverged"
    seconds = round(time.perf_counter() - started, 2)
    return {"state": state, "history": history, "seconds": seconds}


def _append(path: Path, record: dict[str, Any]) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(record, separators=(",", ":"), allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
