"""Show a study: how far it is, its trials, the best one and where its model is.

python scripts/status.py studies/digits_w3a3-20260101-120000
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from synq_tune.cli.arguments import command_parser
from synq_tune.study.ledger import Ledger
from synq_tune.study.status import format_status


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = command_parser(__doc__)
    made.add_argument("folder", type=Path, metavar="DIR", help="folder of a study")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    folder = parser().parse_args(argv).folder
    print(format_status(Ledger.open(folder, read_only=True).state, folder), end="")
    return 0
