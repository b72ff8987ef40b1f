"""Try model files in every runtime on this machine; prints a markdown table.

python scripts/runtimes.py studies/x/best/*.onnx studies/x/best/model.packed.safetensors
python scripts/runtimes.py --float-baseline torchvision:resnet18 --input-size 224 --output out
python scripts/runtimes.py --probe --output out             # where each format is exact, measured
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
        "--probe",
        action="store_true",
        help="instead: the bundled CNN and ViT in every format, compared code by code",
    )
    made.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        default=Path("runtimes"),
        help="folder of --float-baseline and --probe",
    )
    return made


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line of `runtimes.py`."""
    made = parser()
    arguments = made.parse_args(argv)
    if not (arguments.files or arguments.float_baseline or arguments.probe):
        made.error("name a model file, --float-baseline NETWORK or --probe")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(argv)
    if arguments.probe:
        from synq_tune.commands.format_probes import probe_formats

        print("\n".join(probe_formats(arguments.output)))
        return 0
    from synq_tune.commands.runtimes import runtimes_command

    print("\n".join(runtimes_command(arguments)))
    return 0
