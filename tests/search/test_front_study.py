"""A search of two objectives through the command: killed, resumed, any point of its front exported."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from synq_tune import Study
from synq_tune.export.runtime import load_model_file
from synq_tune.study.files import checkpoint_path
from synq_tune.study.ledger import LEDGER_NAME, Ledger
from synq_tune.tracking import default_tracking_uri
from tests.helpers import ROOT, small_command, small_search

SETS = [
    "synthesis.num_images=64", "synthesis.num_holdout=32", "synthesis.batch_size=96",
    "synthesis.iterations=5", "synthesis.center_iterations=5",
    "finetune.epochs=3", "finetune.batch_size=32", "finetune.num_views=2",
    "study.confirm={top: 1, seeds: 2}", "study.num_trials=4", "study.scheduler=none",
    "study.keep_checkpoints=1",
    "search={bits.weights: {choice: [2, 4, 6, 8]}}",
    "study.objectives=[top1, size]",
]  # fmt: skip


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_resumed_and_exported(tmp_path: Path) -> None:
    """Each trial ends once with its size; the knee is in `best/`, and another point has its own widths."""
    folder = tmp_path / "study"
    driver = subprocess.Popen(small_command(folder, sets=SETS), cwd=tmp_path)
    while b'"event":"finished"' not in _ledger(folder) and driver.poll() is None:
        time.sleep(0.2)
    driver.send_signal(signal.SIGKILL)
    assert driver.wait() == -signal.SIGKILL
    before = [line for line in _ledger(folder).splitlines() if b'"event":"finished"' in line]
    done = small_search(folder, "--resume", sets=SETS)
    assert done.returncode == 0, done.stderr
    lines = [line for line in _ledger(folder).splitlines() if b'"event":"finished"' in line]
    assert lines[: len(before)] == before
    summary = json.loads((folder / "summary.json").read_text())
    assert len(summary["trials"]) == 4 == len({t["metrics"]["size"] for t in summary["trials"]})
    knee = next(row for row in summary["front"] if row["is_knee"])
    assert summary["best"]["number"] == knee["number"] and "<- the knee" in done.stdout
    assert len(Study(folder).front) == len(summary["front"])
    _check_mlflow(folder)
    found = [run for run in Ledger.open(folder, read_only=True).state.of_kind("confirm")]
    assert {run.number for run in found} >= {row["number"] for row in summary["front"]}
    other = next(row for row in summary["front"] if not row["is_knee"])
    # Kept although `keep_checkpoints` is 1: nothing is trained again.
    assert checkpoint_path(folder, f"trial-{other['number']:04d}").is_file()
    _check_widths(folder, tmp_path / "out", other)


def _ledger(folder: Path) -> bytes:
    path = folder / LEDGER_NAME
    return path.read_bytes() if path.is_file() else b""


def _check_mlflow(folder: Path) -> None:
    state, client = (
        Ledger.open(folder, read_only=True).state,
        MlflowClient(default_tracking_uri(folder)),
    )
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(ids, f"tags.`synq.study` = '{state.header['id']}'")
    children = [run for run in runs if "synq.key" in run.data.tags]
    assert sorted(run.data.tags["synq.key"] for run in children) == sorted(state.runs)
    for child in children:
        (point,) = client.get_metric_history(child.info.run_id, "size")
        assert point.value == state.runs[child.data.tags["synq.key"]].metrics["size"]


def _check_widths(folder: Path, output: Path, row: dict) -> None:
    """The exported file has the point's widths, which are not those of `best/`."""
    command = [sys.executable, str(ROOT / "scripts/export.py"), "--study", str(folder), "--trial",
               str(row["number"]), "--format", "packed", "--output", str(output)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    widths = [
        load_model_file(place / "model.packed.safetensors").metadata["bits"]["weights"]
        for place in (output, folder / "best")
    ]
    assert widths[0] == row["params"]["bits.weights"] != widths[1]
