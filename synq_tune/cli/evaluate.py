"""Measure an exported model file on labelled images; the last line is the accuracy.

python scripts/evaluate.py --model studies/x/best/model.onnx --val-data digits
"""

from __future__ import annotations

import argparse

from synq_tune.cli.arguments import SOURCES, add_shared, command_parser


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = command_parser(__doc__)
    made.add_argument(
        "--model",
        metavar="FILE",
        required=True,
        help="model.onnx, model.packed.safetensors, model.tflite, model.pte or model.openvino.xml",
    )
    add_shared(made, "--val-data", required=("--val-data",), meaning=f"labelled images: {SOURCES}")
    made.add_argument(
        "--golden",
        metavar="FILE",
        help="golden.npz, whose values it has to give; default: none is compared",
    )
    made.add_argument(
        "--batch-size", type=int, metavar="N", help="images per forward; default: what fits a CPU"
    )
    made.add_argument(
        "--python-model",
        metavar="PLACE:FUNCTION",
        help="your own network's code, which a packed file of it may run; default: none",
    )
    return made


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line of `evaluate.py`."""
    return parser().parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(argv)
    from synq_tune.commands.evaluate import evaluate_command

    return evaluate_command(arguments)
