"""Make the synthetic dataset of a space, and nothing else.

python scripts/synthesize.py --space digits_w3a3 --export png --output images
"""

from __future__ import annotations

import argparse
from pathlib import Path

from synq_tune.cli.arguments import add_shared, command_parser, flags_of


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = command_parser(__doc__)
    add_shared(made, "--space", "--weights", required=("--space",))
    add_shared(made, "--set", "--store")
    made.add_argument(
        "--export", choices=("png", "npy"), help="also write images and labels; default: no"
    )
    made.add_argument(
        "--output", metavar="DIR", type=Path, default=Path("synthetic"), help="folder of --export"
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

    spec = load_space(arguments.space, arguments.sets, flags)
    store = store_folder(arguments.store)
    # torch takes a second to import: wrong settings, and weights that cannot be had, are refused
    # before.
    fetch_first(spec.teacher, store)
    from synq_tune.commands.synthesize import synthesize_space

    print(synthesize_space(spec, store, arguments.export, arguments.output))
    return 0
