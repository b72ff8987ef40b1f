"""Try model files in every runtime on this machine; prints a markdown table.

python scripts/runtimes.py studies/x/best/*.onnx studies/x/best/model.packed.safetensors
python scripts/runtimes.py --float-baseline torchvision:resnet18 --input-size 224 --output out
"""

from __future__ import annotations

import argparse
from pathlib import Path

from synq_tune.cli.arguments import command_parser


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = command_parser(__doc__)
    made.add_argument("files", metavar="MODEL", type=Path, nargs="*", help="model files")
    made.add_argument(
        "--golden",
        metavar="FILE",
        type=Path,
        help="values each file has to give; default: golden.npz beside each file",
    )
    made.add_argument("--threads", type=int, metavar="N", default=2, help="of each runtime")
    made.add_argument("--rounds", type=int, metavar="N", default=20, help="timed runs of each")
    made.add_argument(
        "--python-model", metavar="PLACE:FUNCTION", help="your own network's code; default: none"
    )
    made.add_argument(
        "--float-baseline",
        metavar="NETWORK",
        help="first write this network, with random weights, in float32 and quantized; default: none",
    )
    made.add_argument(
        "--input-size", type=int, metavar="N", default=224, help="pixels, of --float-baseline"
    )
    made.add_argument("--bits", type=int, metavar="N", default=8, help="of --float-baseline")
    made.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        default=Path("runtimes"),
        help="folder of --float-baseline",
    )
    return made


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line of `runtimes.py`."""
    made = parser()
    arguments = made.parse_args(argv)
    if not arguments.files and not arguments.float_baseline:
        made.error("name a model file or --float-baseline NETWORK")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(argv)
    from synq_tune.commands.runtimes import runtimes_command

    print("\n".join(runtimes_command(arguments)))
    return 0
