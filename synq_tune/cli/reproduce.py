"""Run a table of SynQ's paper and put its numbers beside those that were measured here.

python scripts/reproduce.py table7 --dry-run
python scripts/reproduce.py table7 --weights FILE --val-data cifar10:DIR --output results
python scripts/reproduce.py table7 --rows GDFQ "GDFQ + SynQ" --columns W3A3 --seeds 1 …
python scripts/reproduce.py table7 --scale paper --weights FILE --val-data DIR --output results

A second call goes on where the first was stopped. Rows that are not built say so.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from synq_tune.cli.arguments import add_shared, command_parser, flags_of
from synq_tune.errors import InputError
from synq_tune.experiments import reproduce
from synq_tune.experiments.paper_table import read_table, table_names
from synq_tune.store import store_folder


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = command_parser(__doc__)
    made.add_argument("table", metavar="TABLE", help=", ".join(table_names()))
    made.add_argument(
        "--scale", choices=("small", "paper"), default="small",
        help="a stand-in for a small machine, or the paper's network and budget; default: small",
    )  # fmt: skip
    made.add_argument(
        "--rows", nargs="+", default=[], metavar="NAME", help="of the table; default: all"
    )
    made.add_argument("--columns", nargs="+", default=[], metavar="NAME", help="default: all")
    made.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="runs of each row; default: 3"
    )
    made.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="gets a file of rows a column; default: none, for --dry-run",
    )
    add_shared(made, "--set", "--weights", "--val-data", "--store")
    made.add_argument(
        "--dry-run", action="store_true", help="print rows, needs and cost; run nothing"
    )
    made.add_argument("--report", action="store_true", help="print the tables, run nothing")
    return made


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parser().parse_args(argv)
    if arguments.seeds < 1:
        raise InputError(f"`--seeds >= 1` must hold, but got {arguments.seeds}.")
    if arguments.output is None and not arguments.dry_run:
        raise InputError("`--output DIR is given` must hold, but it is not. Pass --output results.")
    flags = flags_of(arguments)
    if arguments.dry_run and arguments.val_data is None:
        flags["study"] = {**(flags.get("study") or {}), "val_data": reproduce.NOT_GIVEN}
    table = read_table(arguments.table)
    chosen = (arguments.rows, arguments.columns, arguments.sets, flags)
    found = reproduce.jobs(table, arguments.scale, *chosen)
    if arguments.dry_run:
        print(*reproduce.plan(table, found, arguments.seeds), sep="\n")
        return 0
    if not arguments.report:
        store = store_folder(arguments.store)
        for line in reproduce.run(found, arguments.seeds, arguments.output, store):
            print(line, flush=True)
    print("", *reproduce.result(table, found, arguments.output), sep="\n")
    return 0
