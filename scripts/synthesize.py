"""Make the synthetic dataset of a space, and nothing else.

python scripts/synthesize.py --space digits_w3a3 --export png --output images
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from synq_tune.commands.cli import exit_code


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--space", required=True, metavar="NAME|FILE")
    parser.add_argument("--weights", metavar="FILE", help="the teacher's checkpoint")
    parser.add_argument("--set", metavar="KEY.PATH=VALUE", action="append", default=[], dest="sets")
    parser.add_argument("--store", metavar="DIR")
    parser.add_argument("--export", choices=("png", "npy"), help="also write images and labels")
    parser.add_argument("--output", metavar="DIR", type=Path, default=Path("synthetic"))
    arguments = parser.parse_args(argv)
    flags = {"teacher": {"weights": {"file": arguments.weights}}}
    # After the signals are heeded: settings take a moment to import.
    from synq_tune.config.load import load_space
    from synq_tune.store import store_folder

    spec = load_space(arguments.space, arguments.sets, flags)
    # torch takes a second to import: wrong settings are refused before.
    from synq_tune.commands.synthesize import synthesize_space

    store = store_folder(arguments.store)
    print(synthesize_space(spec, store, arguments.export, arguments.output))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
