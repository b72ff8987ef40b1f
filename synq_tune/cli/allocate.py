"""Choose how many bits each layer gets under a budget, without data.

python scripts/allocate.py --space resnet18_w3a3 --weights resnet18.pth --max-bits 3 --output mixed.yaml
"""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path

from synq_tune.cli.arguments import add_shared, command_parser, flags_of
from synq_tune.errors import InputError

_SIZES = {"": 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_SIZES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_COUNTS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def _number(text: str, units: dict[str, int]) -> float:
    number = re.fullmatch(r"([0-9.]+(?:[eE][-+]?[0-9]+)?) ?([A-Za-z]*)", text.strip())
    try:
        value = float(number[1]) * units[number[2]]
    except (TypeError, KeyError, ValueError):
        listed = ", ".join(unit for unit in units if unit)
        raise argparse.ArgumentTypeError(
            f"`it is a number, alone or with one of {listed}` must hold, but got {text!r}"
        ) from None
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"`it is above 0` must hold, but got {text!r}")
    return value


def size(text: str) -> float:
    """Bytes of such as `2.1MB`."""
    return _number(text, _SIZES)


def count(text: str) -> float:
    """A number such as `0.4G`."""
    return _number(text, _COUNTS)


def positive(text: str) -> int:
    """A whole number above 0."""
    if not re.fullmatch(r"0*[1-9][0-9]{0,8}", text.strip()):
        raise argparse.ArgumentTypeError(f"`it is a whole number >= 1` must hold, but got {text!r}")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = command_parser(__doc__)
    add_shared(made, "--space", "--weights", required=("--space",))
    limits = made.add_argument_group("the budget, at least one of")
    limits.add_argument(
        "--max-size",
        type=size,
        metavar="SIZE",
        help="of all weights, packed, such as 2.1MB; alone it leaves values at the space's bits; "
        "default: any",
    )
    limits.add_argument(
        "--max-bits",
        type=count,
        metavar="BITS",
        help="average of the weights' and, apart, of the values' elements; default: any",
    )
    limits.add_argument(
        "--max-bops",
        type=count,
        metavar="N",
        help="multiplications times both widths, of one image, such as 0.4G; default: any",
    )
    made.add_argument(
        "--output",
        metavar="FILE.yaml",
        type=Path,
        help="write the space with these widths, for search.py; default: none",
    )
    made.add_argument(
        "--check",
        type=positive,
        default=0,
        metavar="N",
        help="also measure N random assignments, and say how the prediction ranks them; default: none",
    )
    made.add_argument(
        "--images",
        type=positive,
        default=256,
        metavar="N",
        help="hold-out images that a layer is measured on, at most",
    )
    add_shared(made, "--val-data", "--set", "--seed", "--store")
    return made


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parser().parse_args(argv)
    _check(arguments)
    flags = flags_of(arguments)
    # After the signals are heeded: settings take a moment to import.
    from synq_tune.config.load import load_space
    from synq_tune.models.fetch_first import fetch_first
    from synq_tune.store import store_folder

    spec = load_space(arguments.space, arguments.sets, flags)
    store = store_folder(arguments.store)
    # torch takes a second to import: wrong settings, and weights that cannot be had, are refused
    # before.
    fetch_first(spec.teacher, store)
    from synq_tune.allocation.costs import Budget
    from synq_tune.commands.allocate import allocate

    budget = Budget(arguments.max_size, arguments.max_bits, arguments.max_bops)
    given = arguments.images, arguments.check, arguments.output
    for line in allocate(spec, budget, store, *given):
        print(line, flush=True)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    limits = arguments.max_size, arguments.max_bits, arguments.max_bops
    if not any(limits):
        raise InputError(
            "`a budget is given` must hold, but got none. Pass --max-size, --max-bits or --max-bops."
        )
    if arguments.output is not None and arguments.output.suffix not in (".yaml", ".yml"):
        raise InputError(
            f"--output: `its name ends in .yaml` must hold, but got {arguments.output}. A space is "
            "known by that."
        )
