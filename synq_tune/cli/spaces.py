"""List the bundled spaces with what a study costs and whether it was measured; or show one.

synq-tune spaces
synq-tune spaces resnet18_w4a4

Images are those of the synthetic dataset. Updates are those of all runs of a study, if nothing is
stopped early. `never` was never run here: nothing is known of its accuracy.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from synq_tune.cli.arguments import command_parser
from synq_tune.config.cost import most_updates, runs_of, trial_updates
from synq_tune.config.load import SPACES_DIR, load_space, names_in
from synq_tune.config.measured import Measurement, measurements
from synq_tune.config.weights_source import weights_source
from synq_tune.errors import lookup
from synq_tune.text_table import aligned
from synq_tune.tracking.describe import searched_widths

_HEADS = ("space", "network", "quantizer", "bits", "images", "updates", "measured")


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = command_parser(__doc__)
    made.add_argument("space", nargs="?", metavar="NAME", help="show this one; default: list all")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    name = parser().parse_args(argv).space
    for line in _table() if name is None else _one(lookup("space", name, names_in(SPACES_DIR))):
        print(line)
    return 0


def bits_text(name: str) -> str:
    """Such as `W4A8`, of a bundled space; `W2-8A4` where it searches the weights' width.

    Widths of single places, such as `skip 8`, would make the table too wide.
    """
    return searched_widths(load_space(name)).split()[0]


def purpose(name: str) -> str:
    """What the first lines of a bundled space's file say, as one paragraph."""
    lines = (SPACES_DIR / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return " ".join(line.lstrip("# ") for line in lines[:first])


def _table() -> list[str]:
    measured = measurements()
    rows = [_row(name, measured[name]) for name in names_in(SPACES_DIR)]
    return aligned([_HEADS, *rows], right=(4, 5))


def _row(name: str, measured: Measurement | None) -> tuple[str, ...]:
    spec = load_space(name)
    images = spec.synthesis.num_images + spec.synthesis.num_holdout
    costs = (f"{images:,}", f"{most_updates(spec):,}")
    is_measured = "never" if measured is None else "yes"
    return (name, spec.teacher.model, spec.quantizer, bits_text(name), *costs, is_measured)


def _one(name: str) -> Iterator[str]:
    spec, measured = load_space(name), measurements()[name]
    yield purpose(name)
    yield ""
    images = f"{spec.synthesis.num_images:,} + {spec.synthesis.num_holdout:,} held out"
    known = "never run here" if measured is None else f"{measured.what} ({measured.where})"
    yield from aligned(
        [
            ("network", spec.teacher.model),
            ("weights", weights_source(spec.teacher).plain),
            ("bits", f"{bits_text(name)}, quantizer {spec.quantizer}"),
            ("images", images),
            ("runs", f"at most {runs_of(spec, spec.study.num_trials)}"),
            ("updates", f"{trial_updates(spec):,} a run, {most_updates(spec):,} at most"),
            ("measured", known),
            ("file", str(SPACES_DIR / f"{name}.yaml")),
        ]
    )
