"""Walk many networks, one JSON line each, and count."""

from __future__ import annotations

import json
import tempfile
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from synq_tune.errors import InputError, stage
from synq_tune.experiments.coverage import STAGES, walk_any_size
from synq_tune.experiments.model_list import ListedModel, listed_cnns, transformers
from synq_tune.text_table import markdown


def coverage_command(arguments: Namespace) -> Iterator[str]:
    """Lines to print: a line per network, then the table."""
    if not arguments.report:
        yield from _walk_all(arguments)
    yield from table(read_rows(arguments.output))


def _walk_all(arguments: Namespace) -> Iterator[str]:
    # Listing the networks takes minutes: wrong arguments are refused before.
    done = {row["model"] for row in read_rows(arguments.output)}
    index, count = _part(arguments.part)
    for stranger in _chosen(arguments)[index - 1 :: count]:
        if stranger.model not in done:
            row = _row(stranger, arguments)
            with open(arguments.output, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            yield f"{row['model']:50} {row['seconds']:6.1f} s  {row['error'] or 'whole'}"


def _part(text: str) -> tuple[int, int]:
    try:
        index, count = (int(part) for part in text.split("/"))
    except ValueError:
        index, count = 0, 0
    if not 1 <= index <= count:
        raise InputError(f"`--part is I/N with 1 <= I <= N` must hold, but got {text!r}.")
    return index, count


def _chosen(arguments: Namespace) -> list[ListedModel]:
    """Small ones first, and one of each family before the second of any."""
    if arguments.models:
        return [ListedModel(model, 0, frozenset()) for model in arguments.models]
    all_of = {"cnn": listed_cnns, "transformer": transformers}[arguments.family]
    everybody = sorted(all_of(), key=lambda s: s.parameters)
    first = {s.kinds: s for s in reversed(everybody)}.values()
    ordered = sorted(everybody, key=lambda s: (s not in first, s.parameters))
    return ordered


def _row(stranger: ListedModel, arguments: Namespace) -> dict[str, Any]:
    about = {"model": stranger.model, "parameters": stranger.parameters}
    if stranger.parameters > arguments.max_parameters:
        return {
            **about,
            "passed": [],
            "refused": False,
            "seconds": 0.0,
            "skipped": True,
            "error": f"not run: more than {arguments.max_parameters:.0f} parameters",
        }
    with tempfile.TemporaryDirectory() as folder:
        passage = walk_any_size(stranger.model, Path(folder), arguments.family, arguments.quantizer)
    return {**about, **asdict(passage), "skipped": False}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows so far; none where there is no file.

    Raises:
        InputError: a line is no row.
    """
    with stage("reading the rows", f"--output {path}"):
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        rows = [json.loads(line) for line in lines]
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or "model" not in row:
            raise InputError(
                f"{path}, line {number}: `the line is the row of a network` must hold, but got "
                f"{lines[number - 1][:40]!r}. Delete the line: the network is tried again."
            )
    return rows


def table(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Markdown: networks per library that passed each stage, then every one that did not pass
    all."""
    rows = list(rows)
    run = [row for row in rows if not row["skipped"]]
    counted = []
    for library in (*sorted({row["model"].split(":")[0] for row in run}), "all"):
        mine = [row for row in run if library in ("all", row["model"].split(":")[0])]
        counted.append(_counts(library, mine))
    lines = [*markdown(("library", "networks", *STAGES, "refused by name", "share"), counted)]
    lines += [f"not run (too large): {len(rows) - len(run)}"] if len(rows) > len(run) else []
    lines += [f"{row['model']}: {row['error']}" for row in run if row["error"]]
    return lines


def _counts(library: str, rows: list[dict[str, Any]]) -> list[str]:
    passed = Counter(stage for row in rows for stage in row["passed"])
    refused = sum(row["refused"] for row in rows)
    share = 100 * passed[STAGES[-1]] / max(len(rows), 1)
    counts = [str(passed[stage]) for stage in STAGES]
    return [library, str(len(rows)), *counts, str(refused), f"{share:.1f} %"]
