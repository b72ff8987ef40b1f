"""Early stopping in logical time: the same decisions whatever finishes first.

A rung is passed with the first evaluation at or behind it, as in ordinary ASHA. One that lies behind two
rungs counts for the higher; a trial's last one counts for none, since nothing is left to stop.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from ray.tune.schedulers import TrialScheduler

from synq_tune.config import StudySpec
from synq_tune.search.first_come import FirstCome
from synq_tune.search.logical_time import known_runs
from synq_tune.search.unsaved import NotSaved
from synq_tune.study.objective import objective
from synq_tune.study.state import Run, StudyState
from synq_tune.trial import REDUCTION_FACTOR, grace_epochs


class OrderedHalving(NotSaved, FirstCome):
    """ASHA's rule at ASHA's rungs, against the trials that a trial knows of."""

    def __init__(self, spec: StudySpec, state: StudyState, metric: str) -> None:
        """Judge by `metric` of the runs in `state`, which the ledger keeps current."""
        super().__init__()
        self.state, self.judged_by = state, metric
        self.width = spec.study.deterministic or 1
        grace = grace_epochs(spec.finetune.epochs)
        self.rungs = (grace, grace * REDUCTION_FACTOR)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stop a search trial that is not among the best third known at its rung."""
        run, epoch = trial.config["run"], result.get("epoch")
        if run["kind"] != "search" or epoch is None or "objective" not in result:
            return TrialScheduler.CONTINUE
        judged = self.state.runs[run["key"]]
        rung = max((r for r in self.rungs if r <= epoch), default=None)
        if rung is None or any(rung <= row["epoch"] < epoch for row in judged.history):
            return TrialScheduler.CONTINUE  # before the first, or judged there already
        cutoff = self._cutoff(judged, rung)
        below = cutoff is not None and result["objective"] < cutoff
        return TrialScheduler.STOP if below else TrialScheduler.CONTINUE

    def _cutoff(self, run: Run, rung: int) -> float | None:
        known = known_runs(self.state, run.number or 0, self.width)
        values = [v for other in known if (v := self._value_at(other, rung)) is not None]
        return float(np.percentile(values, 100 * (1 - 1 / REDUCTION_FACTOR))) if values else None

    def _value_at(self, run: Run, rung: int) -> float | None:
        """What a run passed a rung with; None where it has no evaluation between it and the next."""
        end = min((r for r in self.rungs if r > rung), default=math.inf)
        rows = (row for row in judged_rows(run) if rung <= row["epoch"] < end)
        first = next(rows, None)
        return None if first is None else objective(first["metrics"], self.judged_by)


def judged_rows(run: Run) -> list[dict[str, Any]]:
    """The evaluations that count for rungs: of a completed run all but the last."""
    return run.history[:-1] if run.state == "completed" else run.history
