"""Run a table or a figure of SynQ's paper: its numbers beside those measured here, its picture.

python scripts/reproduce.py table7 --dry-run
python scripts/reproduce.py table7 --weights FILE --val-data cifar10:DIR --output results
python scripts/reproduce.py table7 --rows GDFQ "GDFQ + SynQ" --columns W3A3 --seeds 1 …
python scripts/reproduce.py table7 --scale paper --weights FILE --val-data DIR --output results
python scripts/reproduce.py figure5 --weights FILE --val-data cifar10:DIR --output results

A second call goes on where the first was stopped. Rows that are not built say so. A figure is a PNG with the
numbers behind it beside it; tables and figures in one folder share their runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from synq_tune.cli.arguments import add_shared, command_parser, flags_of
from synq_tune.errors import InputError
from synq_tune.experiments import reproduce
from synq_tune.experiments.paper import Nothing, read_item
from synq_tune.experiments.paper_figure import PaperFigure
from synq_tune.experiments.paper_ranges import PaperRanges, range_table
from synq_tune.experiments.paper_table import PaperTable
from synq_tune.store import store_folder


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = command_parser(__doc__)
    made.add_argument("item", metavar="TABLE|FIGURE", help="table1 to table10, figure1 to figure13")
    made.add_argument(
        "--scale", choices=("small", "paper"), default="small",
        help="a stand-in for a small machine, or the paper's network and budget; default: small",
    )  # fmt: skip
    made.add_argument(
        "--rows", nargs="+", default=[], metavar="NAME", help="of the table or figure; default: all"
    )
    made.add_argument("--columns", nargs="+", default=[], metavar="NAME", help="default: all")
    made.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="runs of each row; default: 3"
    )
    made.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="gets a file of rows a column, and a figure's picture; default: none, for --dry-run",
    )
    add_shared(made, "--set", "--weights", "--val-data", "--store")
    made.add_argument(
        "--dry-run", action="store_true", help="print rows, needs and cost; run nothing"
    )
    made.add_argument(
        "--report", action="store_true", help="print the tables, or draw the figure, run nothing"
    )
    return made


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parser().parse_args(argv)
    if arguments.seeds < 1:
        raise InputError(f"`--seeds >= 1` must hold, but got {arguments.seeds}.")
    item = read_item(arguments.item)
    if isinstance(item, (Nothing, PaperRanges)):
        says = [item.says] if isinstance(item, Nothing) else range_table(item, arguments.scale)
        print(*says, sep="\n")
        return 0
    if arguments.output is None and not arguments.dry_run:
        raise InputError("`--output DIR is given` must hold, but it is not. Pass --output results.")
    _reproduce(item, arguments, sys.argv[1:] if argv is None else argv)
    return 0


def _reproduce(table: PaperTable, arguments: argparse.Namespace, given: list[str]) -> None:
    flags = flags_of(arguments)
    if arguments.dry_run and arguments.val_data is None:
        flags["study"] = {**(flags.get("study") or {}), "val_data": reproduce.NOT_GIVEN}
    chosen = (arguments.rows, arguments.columns, arguments.sets, flags)
    found = reproduce.jobs(table, arguments.scale, *chosen)
    if arguments.dry_run:
        print(*reproduce.plan(table, found, arguments.seeds), sep="\n")
        return
    for line in _lines(table, found, arguments, given):
        print(line, flush=True)


def _lines(
    table: PaperTable, found: list[reproduce.Job], arguments: argparse.Namespace, given: list[str]
) -> Iterator[str]:
    store, folder, seeds = store_folder(arguments.store), arguments.output, arguments.seeds
    if isinstance(table, PaperFigure):
        from synq_tune.experiments.figures.draw import make_figure  # torch and matplotlib

        item, scale = arguments.item, arguments.scale
        rest = (seeds, folder, store, given, arguments.report)
        yield from make_figure(item, table, found, scale, *rest)
        return
    if not arguments.report:
        yield from reproduce.run(table, found, seeds, folder, store)
    yield from ("", *reproduce.result(table, found, folder, given))
