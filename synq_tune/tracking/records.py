"""What MLflow holds of the runs, so that nothing is logged twice."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from synq_tune.study.state import Run, StudyState

STATUSES = {
    "running": "RUNNING",
    "completed": "FINISHED",
    "stopped": "FINISHED",
    "diverged": "FAILED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}
"""MLflow's status of a run by the ledger's state."""
STATE, BEST = "state", "best"
"""Tags for people to see, to filter and to group by: the ledger's state of a run, and `yes` on the
runs of the best configuration."""


@dataclass(frozen=True)
class Logged:
    """How much of a run's history MLflow holds; kept in a tag of the child run.

    A run that was killed goes through its last epochs again, as a rule with the same numbers. Until
    its history is as long as what is logged, nothing is; then the digest tells whether it is the
    same.
    """

    entries: int = 0
    last_step: int = -1
    """Highest step of any attempt."""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Logged:
        """Read it from its tag."""
        entries, last_step, digest = text.split(":")
        return cls(int(entries), int(last_step), digest)

    def __str__(self) -> str:
        return f"{self.entries}:{self.last_step}:{self.digest}"

    def missing(self, history: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Entries of `history` not logged yet."""
        if len(history) < self.entries:
            return []
        is_same = self.digest == _digest(history[: self.entries])
        return history[self.entries :] if is_same else history

    def after(self, history: list[dict[str, Any]]) -> Logged:
        """The record once all of `history` is logged."""
        if len(history) < max(1, self.entries):
            return self
        last_step = max([self.last_step, *(entry["epoch"] for entry in history)])
        return Logged(len(history), last_step, _digest(history))


def _digest(history: list[dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(history, sort_keys=True).encode()).hexdigest()[:16]


@dataclass
class Child:
    """What MLflow holds of one run."""

    run_id: str
    status: str = "RUNNING"
    state: str = ""
    has_params: bool = False
    logged: Logged = Logged()
    is_best: bool = False
    """Whether it is marked as the best configuration's."""
    has_inputs: bool = False

    @classmethod
    def from_mlflow(cls, run: Any) -> Child:
        """What a run of MLflow's says."""
        tags = run.data.tags
        logged = Logged.parse(tags["synq.logged"]) if "synq.logged" in tags else Logged()
        # One that an older version logged has no tag for people: it is told again.
        state = tags.get("synq.state", "") if STATE in tags else ""
        return cls(
            run.info.run_id,
            run.info.status,
            state,
            bool(run.data.params),
            logged,
            BEST in tags,
            bool(run.inputs and run.inputs.dataset_inputs),
        )

    def shows(self, run: Run, is_best: bool = False) -> bool:
        """Whether MLflow is up to date with `run`, which is one of the best configuration or
        not."""
        if self.state != run.state or self.status != STATUSES[run.state]:
            return False
        if self.is_best != is_best:
            return False
        return run.is_final or not self.logged.missing(run.history)


def is_waiting(run: Run) -> bool:
    """Whether it is proposed and has never run."""
    return run.state == "running" and run.started_at is None


def is_of_best(run: Run, state: StudyState) -> bool:
    """Whether it is the exported trial, or that one again with another seed."""
    best = state.stages.best
    if best is None or run.number is None:
        return False
    return run.key == best.key or (run.kind == "confirm" and run.number == best.number)
