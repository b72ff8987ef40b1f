"""Tell what a study's folder, its ledger and MLflow disagree on, and mend it from the ledger.

python scripts/doctor.py studies/digits_w3a3-20260101-120000
python scripts/doctor.py studies/digits_w3a3-20260101-120000 --fix
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from synq_tune.cli.arguments import command_parser
from synq_tune.study.doctor import doctor_command
from synq_tune.study.places import place_options
from synq_tune.tracking.check import mlflow_findings


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = command_parser(__doc__)
    made.add_argument("folder", type=Path, metavar="DIR", help="folder of a study")
    made.add_argument("--fix", action="store_true", help="mend what can be mended")
    made.add_argument(
        "--tracking-uri", metavar="URI", help="of MLflow; default: the one that the ledger names"
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parser().parse_args(argv)
    mlflow = partial(mlflow_findings, uri=arguments.tracking_uri)
    options = place_options(tracking_uri=arguments.tracking_uri)
    return doctor_command(arguments.folder, arguments.fix, (mlflow,), options)
