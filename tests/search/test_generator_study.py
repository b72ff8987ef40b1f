"""A search whose trials train generators of their own is killed and resumed."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import small_search
from tests.search.test_study import _start, _summary, _wait_for

SETS = [
    "synthesis.num_images=48", "synthesis.num_holdout=16", "synthesis.batch_size=64",
    "synthesis.iterations=2", "synthesis.center_iterations=2",
    "recipe=gdfq_synq", "finetune.batch_size=8", "finetune.steps_per_epoch=2", "finetune.epochs=2",
    "finetune.calibration_batches=1", "finetune.generator_warmup_epochs=3",
    "study.val_data=null", "study.confirm=null", "study.num_trials=2", "study.checkpoint_every=1",
    "search.d0={choice: [4]}", "search.cam={choice: [gradcam]}",
]  # fmt: skip


def _ends(folder: Path) -> list[Any]:
    return [(t["params"], t["metrics"], t["state"]) for t in _summary(folder)["trials"]]


@pytest.mark.slow
def test_a_warm_up_goes_on_where_it_was(tmp_path: Path) -> None:
    """SIGTERM within a generator's warm-up: the study ends as one that was never stopped."""
    whole = small_search(tmp_path / "whole", "--max-concurrent", "1", sets=SETS)
    assert whole.returncode == 0, whole.stderr
    folder = tmp_path / "stopped"
    process = _start(folder, "--max-concurrent", "1", sets=SETS)
    _wait_for(folder, "kept", 2, process)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    lines = (folder / "ledger.jsonl").read_text().splitlines()
    kept = [e for e in map(json.loads, lines) if e["event"] == "kept"]
    assert kept[0]["epoch"] == 0 and kept[0]["position"] == 1
    done = small_search(folder, "--resume", "--max-concurrent", "1")
    assert done.returncode == 0, done.stderr
    lines = (folder / "ledger.jsonl").read_text().splitlines()
    resumed = [e for e in map(json.loads, lines) if e["event"] == "started" and e.get("position")]
    assert resumed, "no run went on behind a part of its warm-up"
    assert _ends(folder) == _ends(tmp_path / "whole")
