"""What must be so after every fault, read from the ledger, MLflow's database and the study's files."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from synq_tune.store import canonical_json, sha256_file
from synq_tune.study.doctor import examine
from synq_tune.study.files import state_files
from synq_tune.study.ledger import LEDGER_NAME, Ledger
from synq_tune.study.state import StudyState
from synq_tune.study.summary import SUMMARY_NAME, summarize
from synq_tune.tracking import STATUSES
from synq_tune.tracking.check import mlflow_findings

INTERVAL = 1
"""Epochs between checkpoints in the tiny study."""


def ledger_lines(folder: Path) -> list[str]:
    """Whole lines; empty before there is a ledger."""
    path = folder / LEDGER_NAME
    return path.read_text(errors="replace").split("\n")[:-1] if path.exists() else []


@dataclass(frozen=True)
class Verdict:
    """How many trials a study lost or has twice."""

    lost: int
    doubled: int


def check_finished(folder: Path, finals: list[str], trials: int, rework: int = INTERVAL) -> Verdict:
    """Check every promise about a study that has ended; returns the count of what broke.

    Args: see `check_records`.
    """
    verdict = check_records(folder, finals, trials, rework)
    check_files(Ledger.open(folder, read_only=True).state, folder)
    assert examine(Ledger.open(folder, read_only=True), (mlflow_findings,)) == []
    return verdict


def check_records(folder: Path, finals: list[str], trials: int, rework: int = INTERVAL) -> Verdict:
    """Check the ledger and MLflow of a study that has ended.

    Args:
        finals: lines of final records as they were after each fault.
        trials: search trials asked for.
        rework: epochs that a running trial may have to do again.
    """
    lines = ledger_lines(folder)
    state = Ledger.open(folder, read_only=True).state
    assert state.sessions[-1]["action"] == "finished"
    records = [line for line in lines if '"event":"finished"' in line]
    assert records[: len(finals)] == finals, "a final record is not the same bytes"
    verdict = _count(state, [json.loads(line)["key"] for line in records], folder, trials)
    _check_rework([json.loads(line) for line in lines], rework)
    _check_mlflow(state)
    return verdict


def _count(state: StudyState, finished: list[str], folder: Path, trials: int) -> Verdict:
    """Lost: without a final record or MLflow run. Doubled: with two, or a configuration twice."""
    searched = state.of_kind("search")
    children = Counter(run.data.tags["synq.key"] for run in mlflow_children(state))
    records = Counter(finished)
    configurations = Counter(canonical_json(run.params) for run in searched)
    lost = max(0, trials - len(searched)) + sum(
        not (records[key] and children[key] and run.is_final) for key, run in state.runs.items()
    )
    counts = (*records.values(), *children.values(), *configurations.values())
    return Verdict(lost, sum(count - 1 for count in counts) + len(children.keys() - state.runs))


def _check_rework(events: list[dict[str, Any]], interval: int) -> None:
    """A run goes on at most one interval before the furthest it had got."""
    reached: dict[str, int] = defaultdict(int)
    for event in events:
        key = event.get("key", "")
        if event["event"] == "started":
            again = reached[key] - event.get("epoch", 0)
            assert again <= interval, f"{key}: {again} epochs again"
        elif event["event"] in ("evaluated", "kept"):
            reached[key] = max(reached[key], event["epoch"])


def client_of(state: StudyState) -> MlflowClient:
    """A client of the study's store."""
    uri = state.stages.tracking.uri
    return MlflowClient(uri, registry_uri=uri)


def mlflow_children(state: StudyState) -> list[Any]:
    """MLflow's runs of the study but the parent."""
    client = client_of(state)
    places = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(places, f"tags.`synq.study` = '{state.header['id']}'")
    parents = [run for run in runs if run.data.tags["synq.kind"] == "study"]
    assert len(parents) == 1, f"{len(parents)} parent runs"
    return [run for run in runs if "synq.key" in run.data.tags]


def _check_mlflow(state: StudyState) -> None:
    """Status, accuracies and every point of them are those of the ledger, once."""
    client = client_of(state)
    for child in mlflow_children(state):
        run = state.runs[child.data.tags["synq.key"]]
        assert child.info.status == STATUSES[run.state]
        expected = [(e["epoch"], round(e["metrics"]["agreement"], 2)) for e in run.history]
        if run.history:
            points = client.get_metric_history(child.info.run_id, "agreement")
            assert [(p.step, p.value) for p in points] == expected, run.key


def check_files(state: StudyState, folder: Path) -> None:
    """Export = manifest; no training state is left; the summary is the ledger's."""
    assert not state_files(folder)
    for name, sha256 in state.stages.best.files.items():
        assert sha256_file(folder / "best" / name) == sha256, name
    kept = json.loads((folder / SUMMARY_NAME).read_text())
    assert kept == json.loads(json.dumps(summarize(state, folder)))
