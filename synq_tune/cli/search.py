"""Search the hyperparameters of a zero-shot quantization study, on Ray, tracked in MLflow.

python scripts/search.py --space digits_w3a3
python scripts/search.py --space resnet18_w3a3 --val-data /data/imagenet/val --max-hours 8
python scripts/search.py --resume studies/digits_w3a3-20261121-120000
"""

from __future__ import annotations

import argparse

from synq_tune.cli.arguments import add_shared, command_parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line of `search.py`."""
    parser = command_parser(__doc__)
    what = parser.add_argument_group("what to search")
    add_shared(what, "--space", "--weights", "--val-data", "--set")
    add_shared(what, "--from", meaning="try this of search_spaces/best/ first")
    add_shared(what, "--seed")
    size = parser.add_argument_group("how much")
    size.add_argument("--num-trials", type=int, metavar="N", help="in total, also with --resume")
    size.add_argument("--max-concurrent", type=int, metavar="N")
    size.add_argument("--gpus-per-trial", type=float, metavar="F")
    size.add_argument("--max-hours", type=float, metavar="H")
    size.add_argument(
        "--target-loss", type=float, metavar="POINTS", help="done at this much below full precision"
    )
    where = parser.add_argument_group("where")
    folder = where.add_mutually_exclusive_group()
    folder.add_argument("--output-dir", metavar="DIR", help="default: studies/NAME-TIMESTAMP")
    folder.add_argument("--resume", metavar="DIR", help="go on with the study in this folder")
    add_shared(where, "--store")
    where.add_argument("--ray-address", metavar="ADDR", help="join a running cluster")
    where.add_argument(
        "--upload-images",
        action="store_true",
        help="send synthetic images to a tracking store on another machine, too; they resemble the "
        "teacher's training data",
    )
    where.add_argument("--tracking-uri", metavar="URI", help="default: studies/mlflow.db")
    how = parser.add_argument_group("how")
    how.add_argument(
        "--deterministic",
        action="store_true",
        help="one seed is one study, whatever finishes first; may leave places empty",
    )
    how.add_argument(
        "--dry-run", action="store_true", help="time a few steps, print the cost, stop"
    )
    arguments = parser.parse_args(argv)
    if (arguments.space is None) == (arguments.resume is None):
        parser.error("exactly one of --space and --resume is needed")
    if arguments.start is not None and arguments.resume is not None:
        parser.error("--from starts a study; one that is resumed goes on as it began")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(argv)
    # After the signals are heeded: settings take a moment to import.
    from synq_tune.commands.search import search_command

    return search_command(arguments)
