"""Studies that earlier versions left stay readable, and unfinished ones can be finished.

`old/` holds the ledger and the summary of a study of digits (three trials of two epochs) from before the
package was divided into its rooms; {ROOT} stands for where it lay. Checksums are put back by the test.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from synq_tune import Study
from synq_tune.study.ledger import LEDGER_NAME, Ledger, encode_record
from synq_tune.study.status import format_status
from synq_tune.study.summary import summarize

ROOT = Path(__file__).parents[2]
OLD = Path(__file__).parent / "old"
SECOND_TRIAL_STARTED = 14
"""Lines of the ledger when a driver that died then had written."""


def _study(root: Path, lines: int | None = None) -> Path:
    """The old study below `root`, of which the ledger's first `lines` were written."""
    folder = root / "study"
    folder.mkdir()
    records = (OLD / LEDGER_NAME).read_text().replace("{ROOT}", str(root)).splitlines()[:lines]
    ledger = b"".join(encode_record(json.loads(record)) for record in records)
    (folder / LEDGER_NAME).write_bytes(ledger)
    return folder


def test_an_old_study_says_what_it_said(tmp_path: Path) -> None:
    """The summary computed of it today is the one that was written then."""
    folder = _study(tmp_path)
    written = json.loads((OLD / "summary.json").read_text().replace("{ROOT}", str(tmp_path)))
    state = Ledger.open(folder, read_only=True).state
    assert json.loads(json.dumps(summarize(state, folder))) == written


def test_an_old_study_is_shown(tmp_path: Path) -> None:
    """Its trials, its ladder and its best in `status.py`, and as an object."""
    folder = _study(tmp_path)
    text = format_status(Ledger.open(folder, read_only=True).state, folder)
    assert "the best found" in text and "completed" in text
    study = Study(folder)
    assert list(study.trials["state"]) == ["completed"] * 3
    assert len(study.ladder) == 5 and study.to_optuna().best_trial.number in (0, 1, 2)


@pytest.mark.slow
@pytest.mark.ray
def test_an_old_study_is_finished(tmp_path: Path) -> None:
    """`--resume` keeps the trial that was finished and runs the others, whose dataset is made again."""
    folder = _study(tmp_path, SECOND_TRIAL_STARTED)
    before = Ledger.open(folder, read_only=True).state.runs["trial-0000"]
    run = subprocess.run(
        [sys.executable, str(ROOT / "scripts/search.py"), "--resume", str(folder)],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    state = Ledger.open(folder, read_only=True).state
    assert state.runs["trial-0000"] == before
    assert [r.state for r in state.of_kind("search")] == ["completed"] * 3
    assert (folder / "best" / "model.onnx").is_file()
