"""How far searches end from the best of a recorded grid, at equal numbers of epochs; trains
nothing.

python scripts/regret.py                        # the bundled table: digits_w3a3, 80 configurations
python scripts/regret.py --table FILE --seeds 100
python scripts/regret.py --record FILE --space digits_w3a3 --set 'search.lr={choice: [1e-3, 1e-2]}' …

`--record` trains every configuration of a space of choices once per `--grid-seeds` and appends to
FILE; a second call goes on where the first was interrupted.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from synq_tune.cli.arguments import add_shared, command_parser, flags_of
from synq_tune.config.load import load_space
from synq_tune.errors import InputError
from synq_tune.store import store_folder


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parser().parse_args(argv)
    for line in _record(arguments) if arguments.record else _replay(arguments):
        print(line, flush=True)
    return 0


def _record(arguments: argparse.Namespace) -> Iterable[str]:
    if arguments.space is None:
        raise InputError(
            "`--record comes with --space` must hold, but got no space. Pass --space NAME."
        )
    flags = flags_of(arguments)
    spec = load_space(arguments.space, arguments.sets, flags)
    from synq_tune.experiments.grid import record_grid

    store = store_folder(arguments.store)
    # Folders of this machine are nobody's business in a file that is passed on.
    shown = ["--record", arguments.record.name, "--space", Path(arguments.space).name]
    shown += [part for text in arguments.sets for part in ("--set", text)]
    shown += ["--val-data", spec.study.val_data or "", "--grid-seeds", str(arguments.grid_seeds)]
    return record_grid(spec, arguments.record, store, arguments.grid_seeds, shown)


def _replay(arguments: argparse.Namespace) -> Iterable[str]:
    from synq_tune.experiments.regret import regret_command

    return regret_command(arguments.table, arguments.seeds, arguments.workers)


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = command_parser(__doc__)
    made.add_argument(
        "--table", type=Path, metavar="FILE", help="a recorded grid; default: the bundled one"
    )
    made.add_argument("--seeds", type=int, default=20, metavar="N", help="searches per method")
    made.add_argument("--workers", type=int, default=2, metavar="N", help="trials at once")
    made.add_argument(
        "--record", type=Path, metavar="FILE", help="make or complete a table; default: replay one"
    )
    add_shared(made, "--space", "--val-data", "--set")
    made.add_argument(
        "--grid-seeds", type=int, default=1, metavar="N", help="runs per configuration"
    )
    add_shared(made, "--store")
    return made
