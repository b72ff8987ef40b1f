"""Try model files in every runtime on this machine; prints a markdown table.

python scripts/runtimes.py studies/x/best/*.onnx studies/x/best/model.packed.safetensors
python scripts/runtimes.py --float-baseline torchvision:resnet18 --input-size 224 --output out
"""

from __future__ import annotations

import argparse
from pathlib import Path

from synq_tune.cli.arguments import command_parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line of `runtimes.py`."""
    parser = command_parser(__doc__)
    parser.add_argument("files", metavar="MODEL", type=Path, nargs="*")
    parser.add_argument(
        "--golden", metavar="FILE", type=Path, help="default: golden.npz beside each file"
    )
    parser.add_argument("--threads", type=int, metavar="N", default=2)
    parser.add_argument("--rounds", type=int, metavar="N", default=20, help="timed runs of each")
    parser.add_argument("--python-model", metavar="PLACE:FUNCTION", help="your own network's code")
    parser.add_argument(
        "--float-baseline",
        metavar="NETWORK",
        help="first write this network, with random weights, in float32 and quantized",
    )
    parser.add_argument("--input-size", type=int, metavar="N", default=224)
    parser.add_argument("--bits", type=int, metavar="N", default=8)
    parser.add_argument("--output", metavar="DIR", type=Path, default=Path("runtimes"))
    arguments = parser.parse_args(argv)
    if not arguments.files and not arguments.float_baseline:
        parser.error("name a model file or --float-baseline NETWORK")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(argv)
    from synq_tune.commands.runtimes import runtimes_command

    print("\n".join(runtimes_command(arguments)))
    return 0
