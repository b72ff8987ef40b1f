"""Studies end to end through the command, on the bundled teacher: real Ray, real MLflow, real files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnxruntime
import pytest

from synq_tune.study.ledger import Ledger
from tests.helpers import SMALL_STUDY, small_command, small_search

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

SUMMARY_KEYS = {
    "format", "study", "space", "metric", "mode", "seed", "teacher", "dataset", "trials", "best",
    "tracking_uri",
}  # fmt: skip


def _summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def _children(folder: Path) -> list[Any]:
    client = mlflow.MlflowClient(f"sqlite:///{folder.parent / 'mlflow.db'}")
    ids = [e.experiment_id for e in client.search_experiments()]
    study = Ledger.open(folder, read_only=True).state.header["id"]
    runs = client.search_runs(ids, f"tags.`synq.study` = '{study}'")
    return [r for r in runs if "synq.key" in r.data.tags]


def test_it_ends_with_the_ladder_and_the_way_to_browse(finished: tuple[Path, str]) -> None:
    """Ladder, exported file, the exact `mlflow ui` line and the study's page."""
    folder, out = finished
    for line in (
        "full precision", "calibrated on noise", "calibrated on the synthetic set",
        "the paper's defaults", "the best found", f"{folder}/best/model.onnx",
        f"mlflow ui --backend-store-uri sqlite:///{folder.parent}/mlflow.db",
        "http://127.0.0.1:5000/#/experiments/",
    ):  # fmt: skip
        assert line in out
    assert "chosen on 448, measured on 448" in out


def test_the_summary_has_its_contract(finished: tuple[Path, str]) -> None:
    """Keys, states, percentages, numbers in order."""
    summary = _summary(finished[0])
    assert set(summary) >= SUMMARY_KEYS
    assert [t["number"] for t in summary["trials"]] == [0, 1, 2, 3]
    assert {t["state"] for t in summary["trials"]} <= {"completed", "stopped", "diverged"}
    assert summary["metric"] == "top1"
    for trial in summary["trials"]:
        assert set(trial) == {
            "number", "state", "params", "metrics", "epochs_run", "started_at", "finished_at",
            "seconds", "error",
        }  # fmt: skip
        assert set(trial["metrics"]) <= {
            "top1", "agreement", "holdout_kl", "top1_best_epoch", "agreement_best_epoch", "epoch",
        }  # fmt: skip
        if trial["state"] == "diverged":
            continue
        assert 0 <= trial["metrics"]["top1"] <= trial["metrics"]["top1_best_epoch"] <= 100
    params = [json.dumps(t["params"], sort_keys=True) for t in summary["trials"]]
    assert len(set(params)) == len(params)
    best = summary["best"]
    assert summary["trials"][best["number"]]["state"] == "completed"
    assert summary["teacher"]["top1"] > 95


def test_the_best_student_is_exported_whole(finished: tuple[Path, str]) -> None:
    """Five files; the ONNX file runs on its own from pixels in [0, 1]; parity is named."""
    best = finished[0] / "best"
    assert {p.name for p in best.iterdir()} == {
        "model.onnx", "model.packed.safetensors", "golden.npz", "config.yaml", "parity.json",
    }  # fmt: skip
    session = onnxruntime.InferenceSession(best / "model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": np.zeros((2, 1, 8, 8), np.float32)})
    assert logits.shape == (2, 10)
    json.loads((best / "parity.json").read_text())


def test_every_run_is_in_mlflow_once(finished: tuple[Path, str]) -> None:
    """One child per run of the ledger, with its accuracies; sorted by accuracy the best is first."""
    folder, _ = finished
    runs = Ledger.open(folder, read_only=True).state.runs
    children = _children(folder)
    assert sorted(c.data.tags["synq.key"] for c in children) == sorted(runs)
    for child in children:
        run = runs[child.data.tags["synq.key"]]
        assert child.info.status == ("FAILED" if run.state == "diverged" else "FINISHED")
        if run.state != "diverged":
            assert child.data.metrics["top1"] == round(run.metrics["top1"], 2)
            assert child.data.tags["state"] == run.state


def test_a_finished_study_prints_itself_again(finished: tuple[Path, str]) -> None:
    """Resuming does nothing and ends with 0, whichever folder it is called from."""
    folder, _ = finished
    before = (folder / "ledger.jsonl").read_bytes()
    again = small_search(folder, "--resume")
    assert again.returncode == 0, again.stderr
    assert "the best found" in again.stdout
    assert (folder / "ledger.jsonl").read_bytes() == before


@pytest.mark.slow
def test_one_at_a_time_the_same_seed_is_the_same_study(finished: tuple[Path, str]) -> None:
    """Same configurations, same accuracies; the dataset is reused and said to be."""
    folder, out = finished
    second = folder.parent / "second"
    done = small_search(second, "--max-concurrent", "1")
    assert done.returncode == 0, done.stderr
    assert "dataset   made" in out and "dataset   reused" in done.stdout

    def rows(where: Path) -> list[tuple[Any, ...]]:
        trials = _summary(where)["trials"]
        return [(t["number"], t["state"], t["params"], t["metrics"]) for t in trials]

    assert rows(second) == rows(folder)
    assert _summary(second)["best"]["params"] == _summary(folder)["best"]["params"]


@pytest.mark.slow
def test_more_trials_extend_a_finished_study(finished: tuple[Path, str]) -> None:
    """`--num-trials` is the total; what was done stays as it was."""
    folder = finished[0].parent / "extended"
    assert small_search(folder, "--max-concurrent", "2").returncode == 0
    before = _summary(folder)["trials"]
    more = small_search(folder, "--resume", "--num-trials", "6")
    assert more.returncode == 0, more.stderr
    after = _summary(folder)["trials"]
    assert len(after) == 6
    assert after[:4] == before


def _wait_for(folder: Path, event: str, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.time() + 240
    while time.time() < deadline and process.poll() is None:
        path = folder / "ledger.jsonl"
        if path.exists() and path.read_text().count(f'"event":"{event}"') >= count:
            return
        time.sleep(0.1)
    raise AssertionError(f"no {count} {event} events; exit {process.poll()}")


def _start(folder: Path, *arguments: str, sets: list[str] = SMALL_STUDY) -> subprocess.Popen[str]:
    return subprocess.Popen(
        small_command(folder, *arguments, sets=sets), cwd=folder.parent, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)],
    ids=lambda s: s.name,
)
@pytest.mark.long
def test_a_signal_ends_cleanly_and_resume_finishes(tmp_path: Path, number: signal.Signals) -> None:
    """Exit 130, finished trials kept, the rest run on resume."""
    folder = tmp_path / "study"
    sets = [*SMALL_STUDY, "study.confirm=null", "finetune.epochs=2"]
    process = _start(folder, "--max-concurrent", "1", sets=sets)
    _wait_for(folder, "finished", 2, process)
    process.send_signal(number)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert "--resume" in error
    over = ("completed", "stopped", "diverged")
    kept = [t for t in _summary(folder)["trials"] if t["state"] in over]
    assert kept
    done = small_search(folder, "--resume", "--max-concurrent", "2")
    assert done.returncode == 0, done.stderr
    trials = _summary(folder)["trials"]
    assert len(trials) == 4
    assert [t for t in trials if t["number"] in [k["number"] for k in kept]] == kept


@pytest.mark.slow
def test_killed_twice_nothing_is_lost_or_run_again(tmp_path: Path) -> None:
    """SIGKILL of the driver between and within trials; final records stay byte for byte."""
    folder = tmp_path / "study"
    finals: list[str] = []
    for kill, count in enumerate((1, 3)):
        process = _start(folder, *(["--resume"] if kill else []), "--max-concurrent", "2")
        _wait_for(folder, "finished", count, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        lines = (folder / "ledger.jsonl").read_text().splitlines()
        now = [line for line in lines if '"event":"finished"' in line]
        assert now[: len(finals)] == finals
        finals = now
    done = small_search(folder, "--resume")
    assert done.returncode == 0, done.stderr
    lines = (folder / "ledger.jsonl").read_text().splitlines()
    now = [line for line in lines if '"event":"finished"' in line]
    assert now[: len(finals)] == finals
    keys = [json.loads(line)["key"] for line in now]
    assert len(keys) == len(set(keys))
    assert len([k for k in keys if k.startswith("trial")]) == 4
    assert len(_children(folder)) == len(keys)


def test_a_diverging_trial_does_not_stop_the_study(finished: tuple[Path, str]) -> None:
    """It ends as `diverged` with what broke, epoch and parameters; the others go on."""
    first, second, *_ = _summary(finished[0])["trials"]
    assert (first["state"], first["params"]["lr"]) == ("diverged", 1e30)
    assert "epoch 1" in first["error"] and "lr=1e+30" in first["error"]
    assert second["state"] == "completed"


@pytest.mark.slow
def test_without_labels_it_chooses_by_agreement(tmp_path: Path) -> None:
    """No accuracy is measured or printed; the ladder compares with the teacher."""
    folder = tmp_path / "study"
    done = small_search(folder, sets=[*SMALL_STUDY, "study.val_data=null", "study.num_trials=2"])
    assert done.returncode == 0, done.stderr
    summary = _summary(folder)
    assert summary["metric"] == "agreement"
    assert all("top1" not in t["metrics"] for t in summary["trials"])
    assert summary["teacher"]["top1"] is None
    assert "no labelled images" in done.stdout
