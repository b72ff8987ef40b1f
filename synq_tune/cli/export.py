"""Export a student again: from a study's folder, or from a run in MLflow.

python scripts/export.py --study studies/digits_w3a3-20261121-120000 --format onnx
python scripts/export.py --study DIR --trial 3 --format packed --output out
python scripts/export.py --study DIR --format hardware --batch-size 1
python scripts/export.py --study DIR --format tflite
python scripts/export.py --study DIR --format openvino
python scripts/export.py --run 0123456789abcdef --tracking-uri sqlite:////path/mlflow.db
"""

from __future__ import annotations

import argparse
from pathlib import Path

from synq_tune.cli.arguments import command_parser


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = command_parser(__doc__)
    which = made.add_mutually_exclusive_group(required=True)
    which.add_argument("--study", metavar="DIR", type=Path, help="folder of a study")
    which.add_argument("--run", metavar="ID", help="MLflow run of a study, or of one of its trials")
    made.add_argument(
        "--trial", type=int, metavar="N", help="which of the study's trials; default: its best"
    )
    made.add_argument(
        "--format",
        choices=("onnx", "packed", "hardware", "tflite", "pte", "openvino", "tensorrt"),
        default="onnx",
        help="what is written",
    )
    made.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="fixed number of images; default: any, for tensorrt and pte 1",
    )
    made.add_argument(
        "--no-normalize", action="store_true", help="an ONNX file that takes normalised images"
    )
    made.add_argument("--output", metavar="DIR", type=Path, default=Path("exported"), help="folder")
    made.add_argument(
        "--tracking-uri",
        metavar="URI",
        default="sqlite:///studies/mlflow.db",
        help="of MLflow, with --run",
    )
    return made


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    made = parser()
    arguments = made.parse_args(argv)
    # torch and MLflow take seconds to import: wrong arguments are refused before.
    if arguments.run:
        if arguments.batch_size is not None or arguments.no_normalize:
            made.error("--batch-size and --no-normalize need --study: MLflow keeps finished files")
        if arguments.format in ("openvino", "pte", "tensorrt"):
            made.error(f"--format {arguments.format} needs --study: MLflow holds no such file")
        from synq_tune.tracking import download_exported

        path = download_exported(
            arguments.tracking_uri, arguments.run, arguments.format, arguments.output
        )
        print(path)
        return 0
    from synq_tune.commands.export import export_trial

    line = export_trial(
        arguments.study,
        arguments.trial,
        arguments.format,
        arguments.output,
        arguments.batch_size,
        not arguments.no_normalize,
    )
    print(line)
    return 0
