"""What a user sees of a study."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from synq_tune.study.ledger import Ledger
from synq_tune.study.stages import Best, Ladder, Rung, Tracking
from synq_tune.study.status import format_status

SCRIPT = Path(__file__).parents[2] / "scripts" / "status.py"


def add(ledger: Ledger, number: int, how: str, **metrics: float) -> None:
    key = f"trial-{number:04d}"
    params = {"lr": 0.01, "cam": "gradcam"}
    ledger.append("proposed", key=key, kind="search", number=number, params=params, seed=0)
    ledger.append("started", key=key)
    ledger.append(
        "finished", key=key, state=how, metrics=metrics, epochs_run=24, seconds=3.25,
        error="out of\nmemory" if how == "failed" else None,
    )  # fmt: skip


def test_header_alone_is_shown(ledger: Ledger) -> None:
    """A study that has not begun has a status too."""
    text = format_status(ledger.state, ledger.folder)
    assert "not started" in text and "0 of 12" in text and str(ledger.folder) in text


def test_trials_best_and_export_are_shown(ledger: Ledger) -> None:
    """The table has one line per trial, and the best says where its model is."""
    add(ledger, 0, "completed", top1=91.234, agreement=80.0, holdout_kl=0.1234)
    add(ledger, 1, "failed")
    metrics = ledger.state.runs["trial-0000"].metrics
    ledger.record(Best("trial-0000", 0, {"lr": 0.01}, metrics, "/s/best", files={}))
    text = format_status(ledger.state, ledger.folder)
    assert "2 of 12: 1 completed, 1 failed" in text
    (row,) = (line for line in text.splitlines() if line.startswith("0 "))
    expected = ["0", "completed", "91.23", "80.00", "0.1234", "24", "3.2", "lr=0.01", "cam=gradcam"]
    assert row.split() == expected
    assert "[out of memory]" in text
    assert "best     trial 0: top1 91.23" in text and "/s/best" in text


def test_ladder_says_what_decided_and_what_measured(ledger: Ledger) -> None:
    """Accuracies come with their interval and the number of images behind them."""
    measured = {"top1": 91.0, "low": 89.0, "high": 93.0, "num_images": 899, "chosen_on": 898}
    ledger.record(Ladder((Rung("the best found", 90.0, **measured),)))
    text = format_status(ledger.state, ledger.folder)
    assert "chosen on 898, measured on 899" in text and "89.00 to 93.00" in text


def test_tracking_uri_is_shown_without_credentials(ledger: Ledger) -> None:
    """A terminal is no place for a password."""
    ledger.record(Tracking("https://ann:secret@host/x"))
    text = format_status(ledger.state, ledger.folder)
    assert "https://host/x" in text and "secret" not in text


def test_script_shows_a_study_from_anywhere(ledger: Ledger, tmp_path: Path) -> None:
    """`python scripts/status.py DIR` needs no particular folder."""
    add(ledger, 0, "completed", top1=91.0)
    command = [sys.executable, str(SCRIPT), "study"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0 and "1 completed" in result.stdout


def test_script_refuses_a_folder_without_study(tmp_path: Path) -> None:
    """A wrong folder is one line on stderr and exit code 2."""
    result = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)], capture_output=True, text=True
    )
    assert result.returncode == 2 and result.stdout == ""
    assert len(result.stderr.splitlines()) == 1 and "no ledger.jsonl" in result.stderr
