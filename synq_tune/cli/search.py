"""Search the hyperparameters of a zero-shot quantization study, on Ray, tracked in MLflow.

python scripts/search.py --space digits_w3a3
python scripts/search.py --space resnet18_w3a3 --val-data /data/imagenet/val --max-hours 8
python scripts/search.py --resume studies/digits_w3a3-20261121-120000
"""

from __future__ import annotations

import argparse

from synq_tune.cli.arguments import add_shared, command_parser


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = command_parser(__doc__)
    what = made.add_argument_group("what to search")
    add_shared(what, "--space", "--weights", "--val-data", "--set")
    add_shared(
        what,
        "--from",
        meaning="try the best-known settings of search_spaces/best/ first; default: none",
    )
    add_shared(what, "--seed")
    size = made.add_argument_group("how much")
    size.add_argument(
        "--num-trials",
        type=int,
        metavar="N",
        help="in total, also with --resume; default: the space's",
    )
    size.add_argument(
        "--max-concurrent", type=int, metavar="N", help="trials at once; default: the space's"
    )
    size.add_argument(
        "--gpus-per-trial", type=float, metavar="F", help="may be a fraction; default: the space's"
    )
    size.add_argument(
        "--max-hours",
        type=float,
        metavar="H",
        help="stop searching after so long; default: the space's",
    )
    size.add_argument(
        "--target-loss",
        type=float,
        metavar="POINTS",
        help="done at this much below full precision; default: the space's",
    )
    where = made.add_argument_group("where")
    folder = where.add_mutually_exclusive_group()
    folder.add_argument(
        "--output-dir", metavar="DIR", help="the study's folder; default: studies/NAME-TIMESTAMP"
    )
    folder.add_argument(
        "--resume", metavar="DIR", help="go on with the study in this folder; default: a new one"
    )
    add_shared(where, "--store")
    where.add_argument(
        "--ray-address", metavar="ADDR", help="join a running cluster; default: this machine alone"
    )
    where.add_argument(
        "--upload-images",
        action="store_true",
        help="send synthetic images to a tracking store on another machine, too; they resemble the "
        "teacher's training data",
    )
    where.add_argument(
        "--tracking-uri",
        metavar="URI",
        help="of MLflow; default: mlflow.db beside the study's folder",
    )
    how = made.add_argument_group("how")
    how.add_argument(
        "--deterministic",
        action="store_true",
        help="one seed is one study, whatever finishes first; may leave places empty",
    )
    how.add_argument(
        "--dry-run", action="store_true", help="time a few steps, print the cost, stop"
    )
    return made


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line of `search.py`."""
    made = parser()
    arguments = made.parse_args(argv)
    if (arguments.space is None) == (arguments.resume is None):
        made.error("exactly one of --space and --resume is needed")
    if arguments.start is not None and arguments.resume is not None:
        made.error("--from starts a study; one that is resumed goes on as it began")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(argv)
    # After the signals are heeded: settings take a moment to import.
    from synq_tune.commands.search import search_command

    return search_command(arguments)
