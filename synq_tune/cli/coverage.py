"""Take other people's networks through inspect, synthesis, fine-tuning, export, parity.

python scripts/coverage.py --output coverage.jsonl          # goes on where it was; hours on two cores
python scripts/coverage.py --output vit.jsonl --family transformer
python scripts/coverage.py --output coverage.jsonl --report # the table of what is there
"""

from __future__ import annotations

import argparse
from pathlib import Path

from synq_tune.cli.arguments import command_parser


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = command_parser(__doc__)
    made.add_argument("--output", required=True, type=Path, metavar="FILE", help="JSON lines")
    made.add_argument(
        "--family",
        choices=("cnn", "transformer"),
        default="cnn",
        help="CNNs with BatchNorm of timm and torchvision, or timm's ViT, DeiT and Swin",
    )
    made.add_argument(
        "--quantizer",
        metavar="NAME",
        help="of all networks; default: minmax, or vit_lsq for transformers",
    )
    made.add_argument(
        "--part", default="1/1", metavar="I/N", help="every N-th network from the I-th"
    )
    made.add_argument(
        "--max-parameters",
        type=float,
        default=2e8,
        metavar="N",
        help="larger ones are left out; default: 2e8",
    )
    made.add_argument(
        "--models", nargs="*", metavar="MODEL", help="only these; default: all of the family"
    )
    made.add_argument("--report", action="store_true", help="run nothing")
    return made


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parser().parse_args(argv)
    from synq_tune.experiments.coverage_table import coverage_command

    for line in coverage_command(arguments):
        print(line, flush=True)
    return 0
