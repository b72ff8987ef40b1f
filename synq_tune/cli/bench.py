"""Time what a study does against what it must cost: a training step, a trial, synthesis, memory,
what the service adds to a trial, and what a driver of 64 workers takes.

python scripts/bench.py step --space cifar_resnet20_w3a3 --threads 1 --json
python scripts/bench.py step --space resnet18_w4a4 --device cuda --batch-size 16
python scripts/bench.py search --space cifar_resnet20_w3a3 --rounds 1000
python scripts/bench.py scale --space digits_genie_w2a2

Without --weights the network has seeded random weights: speed depends on shapes alone.
"""

from __future__ import annotations

import argparse
import json

from synq_tune.bench.speed import BENCH_NAMES, bench
from synq_tune.cli.arguments import add_shared, command_parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parser().parse_args(argv)
    lines, numbers = bench(
        arguments.what,
        arguments.space,
        arguments.sets,
        arguments.weights,
        arguments.rounds,
        arguments.threads,
        arguments.device,
        arguments.batch_size,
    )
    print("\n".join(lines))
    if arguments.json:
        print(json.dumps(numbers))
    return 0


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = command_parser(__doc__)
    made.add_argument("what", choices=BENCH_NAMES, help="what is timed")
    add_shared(made, "--space", required=("--space",))
    add_shared(made, "--weights", meaning="the teacher's checkpoint; default: random weights")
    made.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help="median of N, of search and scale N trials; default: 5, 100 and 256",
    )
    made.add_argument(
        "--threads", type=int, metavar="N", help="of torch on the CPU; default: torch's own"
    )
    made.add_argument(
        "--device", metavar="NAME", help="cpu or cuda; default: a GPU if there is one"
    )
    made.add_argument(
        "--batch-size", type=int, metavar="N", help="images of a batch; default: the space's"
    )
    add_shared(made, "--set")
    made.add_argument("--json", action="store_true", help="end with one JSON object")
    return made
