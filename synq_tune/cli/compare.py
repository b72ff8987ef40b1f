"""Compare variants of a space with paired seeds: what each gains over the baseline, with an
interval.

python scripts/compare.py --space digits_w3a3 --variants variants.yaml --output table.jsonl
python scripts/compare.py --space digits_w3a3 --variants variants.yaml --output table.jsonl --report

variants.yaml holds `baseline: NAME` and `variants: {NAME: {quantizer: lsq, finetune: {…}, …}, …}`.
A second call goes on where the first was interrupted; changed settings run again.
`--page table.html` shows the same as a forest plot, in a page that loads nothing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from synq_tune.cli.arguments import add_shared, command_parser, flags_of
from synq_tune.errors import InputError
from synq_tune.experiments.compare_table import read_recorded, report
from synq_tune.experiments.variants import load_comparison
from synq_tune.store import store_folder


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = parser().parse_args(argv)
    if arguments.seeds < 1:
        raise InputError(f"`--seeds >= 1` must hold, but got {arguments.seeds}.")
    flags = flags_of(arguments)
    comparison = load_comparison(arguments.variants, arguments.space, arguments.sets, flags)
    shown = _without_output(argv)
    if arguments.report:
        lines = report(comparison.baseline, read_recorded(comparison, arguments.output), shown)
    else:
        # torch takes a second to import: wrong settings are refused before.
        from synq_tune.experiments.compare import compare

        store = store_folder(arguments.store)
        lines = compare(comparison, arguments.seeds, arguments.output, store, shown)
    for line in lines:
        print(line, flush=True)
    if arguments.page:
        # plotly takes a second to import.
        from synq_tune.experiments.compare_page import write_compare_page

        chosen = read_recorded(comparison, arguments.output)
        write_compare_page(comparison.baseline, chosen, shown, arguments.page)
        print(f"\npage      {arguments.page.resolve()}", flush=True)
    return 0


def _without_output(argv: list[str]) -> list[str]:
    """The arguments that make the same table again: `--report` and `--page` show it only."""
    page = [i for i, word in enumerate(argv) if word == "--page"]
    left_out = {*page, *(i + 1 for i in page)}
    rest = [word for i, word in enumerate(argv) if i not in left_out]
    return [word for word in rest if word != "--report" and not word.startswith("--page=")]


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = command_parser(__doc__)
    add_shared(made, "--space", required=("--space",))
    made.add_argument(
        "--variants", required=True, type=Path, metavar="FILE", help="YAML of baseline and variants"
    )
    made.add_argument("--seeds", type=int, default=5, metavar="N", help="runs per variant")
    made.add_argument("--output", required=True, type=Path, metavar="FILE", help="JSON lines")
    add_shared(made, "--set", "--weights")
    add_shared(made, "--val-data", "--store")
    made.add_argument("--report", action="store_true", help="print the table, run nothing")
    made.add_argument(
        "--page",
        type=Path,
        metavar="FILE.html",
        help="also write a page with a forest plot; default: none",
    )
    return made
