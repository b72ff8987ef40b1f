"""What choosing without labels costs: how agreement and the like rank the trials of finished
studies.

python scripts/choosing.py studies/digits_w3a3-20250101-120000 studies/resnet20_cifar10_w3a3-20250102-080000
python scripts/choosing.py table.jsonl --plot choosing.png     # rows that compare wrote

Needs trials in which top1 was measured beside the other metrics: a study with --val-data.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from synq_tune.cli.arguments import command_parser


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = command_parser(__doc__)
    made.add_argument(
        "studies", nargs="+", type=Path, metavar="STUDY_DIR|FILE", help="what is read"
    )
    made.add_argument(
        "--plot", type=Path, metavar="FILE.png", help="scatter of metric and top-1; default: none"
    )
    return made


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parser().parse_args(argv)
    from synq_tune.experiments.choosing import report
    from synq_tune.experiments.choosing_plot import plot_choosing

    for line in report(arguments.studies):
        print(line)
    if arguments.plot is not None:
        plot_choosing(arguments.studies, arguments.plot)
    return 0
