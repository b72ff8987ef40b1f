"""Show what of a network will be quantized, layer by layer, and what stays float and why.

python scripts/inspect.py --space resnet18_w4a4 --weights resnet18.pth
"""

from __future__ import annotations

import argparse

from synq_tune.cli.arguments import add_shared, command_parser, flags_of
from synq_tune.config.load import load_space
from synq_tune.models.fetch_first import fetch_first


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = command_parser(__doc__)
    add_shared(made, "--space", "--weights", required=("--space",))
    made.add_argument(
        "--random-weights", action="store_true", help="ask no checkpoint: shapes are enough"
    )
    add_shared(made, "--set")
    return made


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parser().parse_args(argv)
    flags = flags_of(arguments)
    spec = load_space(arguments.space, arguments.sets, flags)
    # torch takes a second to import: wrong settings, and weights that cannot be had, are refused
    # before.
    if not arguments.random_weights:
        fetch_first(spec.teacher)
    from synq_tune.commands.inspect import inspect_space

    print("\n".join(inspect_space(spec, arguments.random_weights)))
    return 0
