"""What `scripts/report.py` runs: the page of a study, as far as it has come."""

from __future__ import annotations

from pathlib import Path

from synq_tune.search.reporting import write_report
from synq_tune.study.ledger import Ledger


def report_command(folder: Path) -> Path:
    """Write a study's page into its folder; returns its path.

    Raises:
        InputError: the folder holds no study.
    """
    return write_report(Ledger.open(folder, read_only=True).state, folder)
