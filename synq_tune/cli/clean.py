"""Show what the store of datasets and views holds, and delete what is old or named.

python scripts/clean.py
python scripts/clean.py --older-than 30 --delete
python scripts/clean.py --name 'views/*' --delete
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from synq_tune.cli.arguments import add_shared, command_parser
from synq_tune.commands.clean import chosen, delete, entries, table
from synq_tune.store import store_folder


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = command_parser(__doc__)
    add_shared(made, "--store")
    made.add_argument(
        "--studies",
        type=Path,
        default=Path("studies"),
        metavar="DIR",
        help="studies that may use it",
    )
    made.add_argument(
        "--older-than",
        type=float,
        metavar="DAYS",
        help="only what was last written so long ago; default: all",
    )
    made.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="PATTERN",
        dest="names",
        help="only what is named so; repeatable; default: all",
    )
    made.add_argument(
        "--delete", action="store_true", help="delete what is shown; without it nothing is deleted"
    )
    return made


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line of `clean.py`."""
    made = parser()
    arguments = made.parse_args(argv)
    if arguments.delete and arguments.older_than is None and not arguments.names:
        made.error("--delete goes with --older-than or --name ('*' is everything)")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(argv)
    store = store_folder(arguments.store)
    shown = chosen(entries(store, arguments.studies), arguments.older_than, arguments.names)
    print(table(shown))
    for entry in shown if arguments.delete else []:
        if entry.is_in_use:
            print(f"kept: {entry.name}, a study at work may read it", file=sys.stderr)
        else:
            delete(entry)
            print(f"deleted: {entry.name}")
    return 0
