"""Run one trial of a space without Ray: the settings of `finetune` as they stand.

python scripts/finetune.py --space digits_w3a3 --set finetune.lr=1e-2 --export-to out
"""

from __future__ import annotations

import argparse
from pathlib import Path

from synq_tune.cli.arguments import add_shared, command_parser, flags_of


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = command_parser(__doc__)
    add_shared(made, "--space", "--weights", required=("--space",))
    add_shared(made, "--val-data", "--set", "--from", "--seed", "--store")
    made.add_argument(
        "--export-to", metavar="DIR", type=Path, help="write the student here; default: nowhere"
    )
    return made


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parser().parse_args(argv)
    flags = flags_of(arguments)
    # After the signals are heeded: settings take a moment to import.
    from synq_tune.config.load import load_space
    from synq_tune.models.fetch_first import fetch_first
    from synq_tune.store import store_folder

    spec = load_space(arguments.space, arguments.sets, flags, arguments.start)
    store = store_folder(arguments.store)
    # torch takes a second to import: wrong settings, and weights that cannot be had, are refused
    # before.
    fetch_first(spec.teacher, store)
    from synq_tune.commands.finetune import run_one_trial

    for row in run_one_trial(spec, store, arguments.export_to):
        values = {**row.metrics, **{f"loss/{k}": v for k, v in row.losses.items()}}
        print(f"epoch {row.epoch:4d}  " + "  ".join(f"{k} {v:.4f}" for k, v in values.items()))
    return 0
