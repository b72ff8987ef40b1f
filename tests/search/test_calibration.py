"""Studies that need no training: calibration as one trial, and a target that ends a search."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from mlflow import MlflowClient
from ray.tune.search import Searcher

from synq_tune.config import StudySpec
from synq_tune.config.load import load_space
from synq_tune.export import FILE_NAMES
from synq_tune.search.calibration import calibrates_first
from synq_tune.search.queue import RunQueue
from synq_tune.search.sampler import Sampler, max_trials
from synq_tune.search.tune_adapter import LedgerSearcher, StopRequest
from synq_tune.study.ledger import Ledger
from synq_tune.study.progress import hardly_needed_line, loss_of, target_line, target_met
from synq_tune.study.stages import Ladder, Metric, Rung, Teacher
from synq_tune.study.state import StudyState
from synq_tune.study.status import format_status
from synq_tune.study.summary import best_run

ROOT = Path(__file__).parents[2]
SMALL = [
    "synthesis.num_images=48", "synthesis.num_holdout=16", "synthesis.batch_size=64",
    "synthesis.iterations=40", "synthesis.center_iterations=5", "finetune.batch_size=24",
    "finetune.num_views=1",
]  # fmt: skip


def _spec(*sets: str) -> StudySpec:
    return load_space("digits_w3a3", sets)


def _state(tmp_path: Path, spec: StudySpec, values: dict[str, float], reference: float = 99.0):
    """A ledger whose search runs ended with these top1."""
    ledger = Ledger.create(tmp_path / "study", spec)
    ledger.record(Metric("top1", "max"))
    ledger.record(Teacher("net", "ab", top1=98.0, reference=reference))
    for number, (state, top1) in enumerate(values.items()):
        key = f"trial-{number:04d}"
        params = {"epochs": 0} if number == 0 else {"lr": 0.01 * number}
        ledger.append(
            "proposed", key=key, kind="search", number=number, params=params, seed=0, label=""
        )
        ledger.append("started", key=key)
        ledger.append("evaluated", key=key, epoch=3, metrics={"top1": top1}, losses={})
        ledger.append(
            "finished", key=key, state=state.split("-")[0], epochs_run=3, metrics={}, seconds=1.0
        )
    return ledger


def test_nothing_trained_is_one_trial(tmp_path: Path) -> None:
    """At 0 epochs nothing searched matters: no second trial, no repeats, no paper's defaults."""
    spec = _spec("finetune.epochs=0", "study.num_trials=50")
    assert (max_trials(spec), calibrates_first(spec)) == (1, True)
    ledger = _state(tmp_path, spec, {"completed": 90.0})
    queue = RunQueue(spec, Sampler(spec, lambda run: run.metrics.get("top1")))
    assert queue.propose(ledger.state) is None
    assert queue.is_done(ledger.state)
    assert "1 of 1: 1 completed" in format_status(ledger.state, tmp_path)


def test_calibration_takes_no_place_in_a_small_space(tmp_path: Path) -> None:
    """One configuration and a target that calibration misses: the configuration is still tried."""
    spec = _spec("study.target_loss=0", "search.lr={choice: [0.01]}")
    spec = spec.model_copy(update={"search": {"lr": spec.search["lr"]}})
    ledger = _state(tmp_path, spec, {"completed": 90.0})
    queue = RunQueue(spec, Sampler(spec, lambda run: run.metrics.get("top1")))
    assert queue.propose(ledger.state)["key"] == "trial-0001"


def test_without_a_target_nothing_is_tried_first() -> None:
    """An ordinary study starts with its search."""
    assert not calibrates_first(_spec())
    assert calibrates_first(_spec("study.target_loss=1.0"))


def test_the_loss_is_measured_on_the_images_that_chose(tmp_path: Path) -> None:
    """Full precision's value on the choosing half, not on all images."""
    state = _state(tmp_path, _spec("study.target_loss=1"), {"completed": 97.5}).state
    assert loss_of(state, state.runs["trial-0000"]) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("values", "met", "line"),
    [
        ({"completed": 98.2}, "trial-0000",
         "no search needed: calibration alone loses 0.80 points (target 1.00)"),
        ({"completed": 97.0, "completed-1": 98.5}, "trial-0001",
         "target met: trial-0001 loses 0.50 points (target 1.00)"),
        ({"completed": 97.0, "stopped": 98.9}, None,
         "not met yet: trial-0000 loses 2.00 points (target 1.00)"),
        ({"completed": 99.2}, "trial-0000",
         "no search needed: calibration alone gains 0.20 points (target 1.00)"),
        ({"completed": 98.0}, "trial-0000",
         "no search needed: calibration alone loses 1.00 points (target 1.00)"),
    ],
)  # fmt: skip
def test_a_completed_run_meets_the_target(
    tmp_path: Path, values: dict[str, float], met: str | None, line: str
) -> None:
    """At most the target counts; a stopped trial, however good, does not."""
    state = _state(tmp_path, _spec("study.target_loss=1.0"), values).state
    run = target_met(state)
    assert (run.key if run else None) == met
    assert target_line(state) == line
    assert line in format_status(state, tmp_path)


@pytest.mark.parametrize(("top1", "suggested"), [(97.0, dict), (98.5, str)])
def test_a_met_target_starts_nothing_more(tmp_path: Path, top1: float, suggested: type) -> None:
    """Tune is told FINISHED and to stop what runs; a missed target lets the search go on."""
    spec = _spec("study.target_loss=1.0")
    ledger = _state(tmp_path, spec, {"completed": 90.0, "completed-1": top1})
    stop = StopRequest(threading.Event(), lambda: target_met(ledger.state) is not None)
    queue = RunQueue(spec, Sampler(spec, lambda run: run.metrics.get("top1")))
    suggestion = LedgerSearcher(ledger, queue, stop.stop_all, 1).suggest("tune-1")
    assert isinstance(suggestion, suggested)
    assert stop.stop_all() == (suggestion == Searcher.FINISHED)
    assert ("trial-0002" in ledger.state.runs) == (suggested is dict)


def test_the_run_that_meets_the_target_is_the_one_exported(tmp_path: Path) -> None:
    """A study confirmed before it got its target is not stopped by a run it would not export."""
    spec = _spec("study.target_loss=1.0", "study.confirm={top: 2, seeds: 2}")
    ledger = _state(tmp_path, spec, {"completed": 97.5, "completed-1": 98.5})
    for number, top1 in enumerate((97.7, 90.0)):
        key, kind = f"confirm-{number:04d}-1", "confirm"
        ledger.append("proposed", key=key, kind=kind, number=number, params={}, seed=1, label="")
        ledger.append("started", key=key)
        ledger.append(
            "finished", key=key, state="completed", epochs_run=3, metrics={"top1": top1}, seconds=1
        )
    assert best_run(ledger.state).key == "trial-0000"
    assert target_met(ledger.state) is None
    assert target_line(ledger.state).startswith("not met yet: trial-0000 loses 1.50 points")
    ledger.append("session", action="finished")
    assert target_line(ledger.state).startswith("target missed by 0.50 points: trial-0000")


def test_a_calibration_teaches_the_sampler_nothing(tmp_path: Path) -> None:
    """It is no point of the space; the next proposals are."""
    spec = _spec("study.target_loss=0")
    ledger = _state(tmp_path, spec, {"completed": 97.0})
    proposed = Sampler(spec, lambda run: run.metrics.get("top1")).propose(ledger.state)
    assert proposed.keys() == spec.search.keys()


def _with_ladder(state: StudyState, calibrated: float, best: float) -> StudyState:
    names = {"calibrated on the synthetic set": calibrated, "the best found": best}
    state.stages.put(Ladder(tuple(Rung(name, top1=value) for name, value in names.items())))
    return state


def test_the_report_says_when_a_search_was_hardly_needed(tmp_path: Path) -> None:
    """Half a point or less over calibration; not where calibration is itself the best."""
    values = {"completed": 97.0, "completed-1": 98.5}
    state = _state(tmp_path, _spec(), values).state
    assert "within 0.30 points" in hardly_needed_line(_with_ladder(state, 98.0, 98.3))
    assert "is 0.20 points above the best" in hardly_needed_line(_with_ladder(state, 98.5, 98.3))
    assert hardly_needed_line(_with_ladder(state, 97.0, 98.3)) is None
    only = _state(tmp_path / "only", _spec(), {"completed": 97.0}).state
    assert hardly_needed_line(_with_ladder(only, 97.0, 97.0)) is None


def _search(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    values = [part for text in SMALL for part in ("--set", text)]
    where = ["--space", "digits_w8a8", "--output-dir", str(folder), *values]
    if "--resume" in arguments:
        where = ["--resume", str(folder)]
    rest = [a for a in arguments if a != "--resume"]
    command = [sys.executable, str(ROOT / "scripts/search.py"), *where, *rest]
    command += ["--store", str(folder.parent / "store"), "--max-concurrent", "1"]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder.parent)


@pytest.mark.long
def test_a_target_met_by_calibration_ends_before_any_search(tmp_path: Path) -> None:
    """One trial, exported, said in the report, finished for a resume; Ray never starts."""
    folder = tmp_path / "study"
    done = _search(folder, "--target-loss", "10")
    assert done.returncode == 0, done.stderr
    assert "no search needed: calibration alone loses" in done.stdout
    assert " at a time" not in done.stdout
    summary = json.loads((folder / "summary.json").read_text())
    assert [(t["state"], t["params"]) for t in summary["trials"]] == [("completed", {"epochs": 0})]
    assert summary["best"]["number"] == 0
    assert (folder / "best/model.onnx").is_file()
    again = _search(folder, "--resume")
    assert again.returncode == 0 and "stage    finished" in again.stdout
    _fetch_from_mlflow(folder)


def _fetch_from_mlflow(folder: Path) -> None:
    """`export.py --run` fetches a file of the study's run, byte for byte."""
    uri = f"sqlite:///{folder.parent / 'mlflow.db'}"
    runs = MlflowClient(uri).search_runs(["1"])
    parent = next(r.info.run_id for r in runs if "mlflow.parentRunId" not in r.data.tags)
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, str(ROOT / "scripts/export.py"), "--run", parent]
    command += ["--tracking-uri", uri, "--format", "hardware", "--output", "out"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    fetched = (elsewhere / "out/best" / FILE_NAMES["hardware"]).read_bytes()
    assert fetched == (folder / "best" / FILE_NAMES["hardware"]).read_bytes()
    assert [path.name for path in elsewhere.iterdir()] == ["out"]


@pytest.mark.slow
@pytest.mark.ray
def test_a_stricter_target_goes_on(tmp_path: Path) -> None:
    """`--resume --target-loss` extends the study as `--num-trials` does; trial 0 is kept."""
    folder = tmp_path / "study"
    assert _search(folder, "--target-loss", "50", "--set", "finetune.epochs=1").returncode == 0
    before = (folder / "ledger.jsonl").read_bytes()
    sets = ("--num-trials", "2", "--target-loss", "0")
    done = _search(folder, "--resume", *sets)
    assert done.returncode == 0, done.stderr
    summary = json.loads((folder / "summary.json").read_text())
    assert [t["params"].get("epochs") for t in summary["trials"]][0] == 0
    assert (folder / "ledger.jsonl").read_bytes().startswith(before)
    assert "target" in done.stdout


def test_a_negative_target_is_refused(tmp_path: Path) -> None:
    """It is in points below full precision."""
    done = _search(tmp_path / "study", "--target-loss", "-1")
    assert done.returncode == 2 and "target_loss" in done.stderr


@pytest.mark.parametrize("value", ["-1", "nan", "inf"])
def test_a_resumed_study_refuses_it_too(tmp_path: Path, value: str) -> None:
    """The ledger is left as it was."""
    path = Ledger.create(tmp_path / "study", _spec()).folder / "ledger.jsonl"
    before = path.read_bytes()
    done = _search(tmp_path / "study", "--resume", "--target-loss", value)
    assert done.returncode == 2 and f"got {float(value)}" in done.stderr
    assert path.read_bytes() == before
