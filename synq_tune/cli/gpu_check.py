"""Check and time everything on this machine's GPU, in minutes: is what it computes right, how fast
are a step, synthesis and trials that share it, how much memory do they take.

python scripts/gpu_check.py --json gpu.json
python scripts/gpu_check.py --dry-run

Weights are random: nothing is fetched. --dry-run goes through every part on the CPU, at tiny sizes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from synq_tune.cli.arguments import command_parser


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = command_parser(__doc__)
    made.add_argument("--dry-run", action="store_true", help="every part on the CPU, at tiny sizes")
    made.add_argument(
        "--minutes",
        type=float,
        default=8.0,
        metavar="M",
        help="after which no part begins; default: 8",
    )
    made.add_argument(
        "--json", type=Path, metavar="FILE", help="write the rows here too; default: nowhere"
    )
    return made


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns 1 if a number is wrong or could not be had."""
    arguments = parser().parse_args(argv)
    from synq_tune.bench.gpu.visit import gpu_check

    return gpu_check(arguments.dry_run, arguments.minutes, arguments.json)
