"""Early stopping in logical time: the same decisions whatever finishes first.

A rung is passed with the first evaluation at or behind it, as in ordinary ASHA. One that lies
behind two rungs counts for the higher; a trial's last one counts for none, since nothing is left to
stop.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from synq_tune.config import StudySpec
from synq_tune.config.metrics import objective
from synq_tune.search.engine import _by_key
from synq_tune.search.logical_time import known_runs
from synq_tune.search.not_pickled import NotPickled
from synq_tune.study.state import Run, StudyState
from synq_tune.trial.rungs import REDUCTION_FACTOR, grace_epochs


class FifoScheduler(FIFOScheduler):
    """Trials in the order they were suggested, each with the worker that was asked for or found for
    it.

    Tune's own FIFO gives a free worker to the oldest trial that waits, even to one whose own worker
    is about to start. That worker is then given up and the next trial asks for another: once it
    happens, it happens with every trial, and Tune keeps each request to the end of the round. It
    also looks through all trials at each step, for paused ones too, of which there are none here.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """No preference: Tune then gives free workers to those that have none, in their order."""


class DeterministicAsha(NotPickled, FifoScheduler):
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
        """What a run passed a rung with; None where it has no evaluation between it and the
        next."""
        end = min((r for r in self.rungs if r > rung), default=math.inf)
        rows = (row for row in judged_rows(run) if rung <= row["epoch"] < end)
        first = next(rows, None)
        return None if first is None else objective(first["metrics"], self.judged_by)


def judged_rows(run: Run) -> list[dict[str, Any]]:
    """The evaluations that count for rungs: of a completed run all but the last."""
    return run.history[:-1] if run.state == "completed" else run.history


class SearchAsha(FifoScheduler, AsyncHyperBandScheduler):
    """ASHA over the search trials; repeats and rungs of the ladder always run to their end.

    Known by the runs' keys: Tune gives a run that is tried again another identity, and its values
    at the rungs would count twice.
    """

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Give a search trial its bracket."""
        if _is_searched(trial):
            super().on_trial_add(tune_controller, _by_key(trial))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stop a search trial below its rung's cut-off."""
        if not _is_searched(trial):
            return TrialScheduler.CONTINUE
        return super().on_trial_result(tune_controller, _by_key(trial), result)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Nothing: a trial's last evaluation, of all images and a trained student, is no rung's."""

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Nothing: a run may be tried again, and its values stay."""


def _is_searched(trial: Any) -> bool:
    return trial.config["run"]["kind"] == "search"


def make_scheduler(spec: StudySpec, state: StudyState, metric: str) -> TrialScheduler:
    """ASHA as it stood when the ledger was last written, or in logical time, or no early
    stopping."""
    epochs = spec.finetune.epochs
    if spec.study.scheduler == "none" or epochs < REDUCTION_FACTOR:
        return FifoScheduler()
    if spec.study.deterministic is not None:
        return DeterministicAsha(spec, state, metric)
    scheduler = SearchAsha(
        time_attr="epoch",
        metric="objective",
        mode="max",
        max_t=epochs,
        grace_period=grace_epochs(epochs),
        reduction_factor=REDUCTION_FACTOR,
        stop_last_trials=False,
    )
    for run in state.of_kind("search"):
        _replay(scheduler, run, metric)
    return scheduler


def _replay(scheduler: TrialScheduler, run: Run, metric: str) -> None:
    """Let a fresh scheduler see what a run reported, up to where it goes on if it is not over."""
    trial = SimpleNamespace(trial_id=run.key, config={"run": {"kind": run.kind}})
    scheduler.on_trial_add(None, trial)
    for row in judged_rows(run):
        value = objective(row["metrics"], metric)
        if value is not None and (run.is_final or row["epoch"] <= run.kept_epoch):
            scheduler.on_trial_result(None, trial, {"epoch": row["epoch"], "objective": value})
