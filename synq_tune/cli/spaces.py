"""List the bundled spaces: name, model, quantizer, bits, and what each is for.

synq-tune spaces
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from synq_tune.cli.arguments import command_parser
from synq_tune.config.load import SPACES_DIR, load_space
from synq_tune.text_table import aligned


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = command_parser(__doc__)
    parser.parse_args(argv)
    for line in aligned(_row(path) for path in sorted(SPACES_DIR.glob("*.yaml"))):
        print(line)
    return 0


def _row(path: Path) -> tuple[str, str, str, str, str]:
    spec = load_space(path.stem)
    bits = f"W{spec.bits.weights}A{spec.bits.activations}"
    first = path.read_text(encoding="utf-8").splitlines()[0]
    note = first.lstrip("# ") if first.startswith("#") else ""
    return spec.name, spec.teacher.model, spec.quantizer, bits, note
