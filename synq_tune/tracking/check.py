"""What MLflow tells of a study otherwise than the ledger, and how it is put right."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from synq_tune.errors import stage
from synq_tune.process.invocation import command_line
from synq_tune.redact import redact_uri
from synq_tune.study.doctor import Finding
from synq_tune.study.ledger import Ledger
from synq_tune.study.places import place_options, tracking_of
from synq_tune.study.stages import Uploads
from synq_tune.study.state import Run, StudyState
from synq_tune.study.summary import best_run
from synq_tune.tracking import STATUSES, Tracker, TrackingError, default_tracking_uri
from synq_tune.tracking.batch import shown

Child = dict[str, Any]


def mlflow_findings(ledger: Ledger, uri: str | None = None) -> list[Finding]:
    """Runs that MLflow lacks, has too often, has without a trial, or shows otherwise.

    Args:
        ledger: of the study; only read.
        uri: the store; by default the one that the ledger names.
    """
    state, folder = ledger.state, ledger.folder
    given = uri
    if uri is None and state.stages.tracking is None and not state.runs:
        return []  # the study never got that far
    uri = uri or tracking_of(state, folder) or default_tracking_uri(folder)
    try:
        with stage("asking the tracking store", f"--tracking-uri {redact_uri(uri)}"):
            tracker = Tracker.find(uri, folder, state)
        children = tracker.children() if tracker else []
        lost = _lost_model(tracker, ledger) if tracker else []
    except TrackingError as error:
        return [Finding(f"{error} Nothing of it is checked.")]
    if tracker is None:
        return [
            Finding(
                f"MLflow at {redact_uri(uri)} does not have the study",
                lambda: _mend(uri, ledger, []),
            )
        ]
    missing = [Finding(text) for text in _not_uploaded(ledger, given)]
    told = [*_wrong_runs(children, tracker, state), *_wrong_parent(tracker, state)]
    wrong = sorted({run_id for _, ids in told for run_id in ids})
    # One mend for all: the whole projection is made again where it differs.
    return missing + lost + [Finding(text, lambda: _mend(uri, ledger, wrong)) for text, _ in told]


def _lost_model(tracker: Tracker, ledger: Ledger) -> list[Finding]:
    """The best student's model, if somebody deleted it."""
    uploads = ledger.state.stages.uploads or Uploads()
    if not uploads.model or tracker.has_model(uploads.model, uploads.version):
        return []
    name = uploads.version or uploads.model
    return [Finding(f"MLflow no longer has the model {name}", lambda: _ask_again(ledger, uploads))]


def _ask_again(ledger: Ledger, uploads: Uploads) -> None:
    """Leave the study with one thing to do, the upload; a driver does it."""
    ledger.record(Uploads(refused={**uploads.refused, "best model": "it was deleted"}))
    ledger.append("session", action="interrupted")


def _not_uploaded(ledger: Ledger, uri: str | None) -> Iterator[str]:
    uploads = ledger.state.stages.uploads or Uploads()
    for name, error in uploads.refused.items():
        yield (
            f"MLflow has not taken the study's {name} ({error}); try again: "
            + command_line("search.py", "--resume", ledger.folder, *place_options(tracking_uri=uri))
        )


def _wrong_runs(
    children: list[Child], tracker: Tracker, state: StudyState
) -> Iterator[tuple[str, list[str]]]:
    """Each disagreement, and the ids of MLflow's runs that have to go."""
    by_key: dict[str, list[Child]] = defaultdict(list)
    for child in children:
        by_key[child["key"]].append(child)
    for key, same in by_key.items():
        if key not in state.runs:
            yield f"MLflow has a run of {key}, which the ledger does not", [c["id"] for c in same]
        elif len(same) > 1:
            own = [c for c in same if c["parent"] == tracker.parent_id] or same
            ids = [c["id"] for c in same if c is not own[0]]
            yield f"MLflow has {len(same)} runs of {key}", ids
    for run in state.runs.values():
        if run.key not in by_key:
            if run.started_at is not None:
                yield f"MLflow has no run of {run.key}", []
        else:
            yield from _differences(run, by_key[run.key][0])


def _differences(run: Run, child: Child) -> Iterator[tuple[str, list[str]]]:
    """A state that differs is set right; numbers can only be logged anew, in another run."""
    if child["status"] != STATUSES[run.state] or child["state"] != run.state:
        found = f"{child['state'] or 'nothing'} ({child['status']})"
        yield f"MLflow says {found} of {run.key}, which is {run.state}", []
    if run.is_final:
        for name, value in run.metrics.items():
            found = child["metrics"].get(name)
            if found not in (value, shown(name, value)):  # all digits are of an older version
                yield f"MLflow says {name}={found} of {run.key}, which has {value}", [child["id"]]


def _wrong_parent(tracker: Tracker, state: StudyState) -> Iterator[tuple[str, list[str]]]:
    expected = _parent_status(state)
    if expected and tracker.status != expected:
        yield f"MLflow says {tracker.status} of the study, which is {expected}", []


def _parent_status(state: StudyState) -> str | None:
    """MLflow's status of a study that nobody drives; None before its first session."""
    if not state.sessions:
        return None
    if state.sessions[-1]["action"] != "finished":
        return "KILLED"
    return "FAILED" if best_run(state) is None else "FINISHED"


def _mend(uri: str, ledger: Ledger, wrong: list[str]) -> None:
    tracker = Tracker.open(uri, ledger.folder, ledger.state)
    there = {child["id"] for child in tracker.children()}
    for run_id in there.intersection(wrong):
        tracker.delete_run(run_id)
    if there.intersection(wrong):
        tracker = Tracker.open(uri, ledger.folder, ledger.state)
    tracker.sync(ledger.state)
    status = _parent_status(ledger.state)
    if status:
        tracker.finish(status)
