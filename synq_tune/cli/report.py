"""Write a study's page, report.html, into its folder; it opens in any browser, also offline.

python scripts/report.py studies/digits_w3a3-20260101-120000
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from synq_tune.cli.arguments import command_parser


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = command_parser(__doc__)
    made.add_argument("folder", type=Path, metavar="DIR", help="folder of a study")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    folder = parser().parse_args(argv).folder
    from synq_tune.commands.report import report_command

    print(f"report    {report_command(folder)}")
    return 0
