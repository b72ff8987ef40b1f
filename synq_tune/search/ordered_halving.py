"""Early stopping in logical time: the same decisions whatever finishes first."""

from __future__ import annotations

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
        if run["kind"] != "search" or epoch not in self.rungs or "objective" not in result:
            return TrialScheduler.CONTINUE
        cutoff = self._cutoff(self.state.runs[run["key"]], epoch)
        below = cutoff is not None and result["objective"] < cutoff
        return TrialScheduler.STOP if below else TrialScheduler.CONTINUE

    def _cutoff(self, run: Run, epoch: int) -> float | None:
        known = known_runs(self.state, run.number or 0, self.width)
        rows = [row for other in known for row in other.history if row["epoch"] == epoch]
        measured = (objective(row["metrics"], self.judged_by) for row in rows)
        values = [value for value in measured if value is not None]
        return float(np.percentile(values, 100 * (1 - 1 / REDUCTION_FACTOR))) if values else None
