"""Show a study: how far it is, its trials, the best one and where its model is.

python scripts/status.py studies/digits_w3a3-20260101-120000
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from synq_tune.study.ledger import Ledger
from synq_tune.study.status import format_status


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of a study")
    folder = parser.parse_args(argv).folder
    print(format_status(Ledger.open(folder, read_only=True).state, folder), end="")
    return 0
