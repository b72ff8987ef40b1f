"""A search replayed against a recorded grid: the real sampler and the real early stopping, no
training.

Workers are simulated: each takes the queue's next proposal, and its trial's next evaluation arrives
after as many ticks as epochs lie between. The seconds of an epoch are the same for every
configuration.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal

from synq_tune.config import StudySpec
from synq_tune.config.metrics import objective
from synq_tune.experiments.grid import Grid, Row, configurations
from synq_tune.search.queue import RunQueue
from synq_tune.search.sampler import Sampler, configuration_key
from synq_tune.search.schedulers import make_scheduler
from synq_tune.seeds import derive_seed
from synq_tune.study.state import Run, StudyState, apply
from synq_tune.study.summary import finalists

Metric = Literal["top1", "agreement"]


class RandomSearch:
    """Proposes configurations of a space of choices in random order, each once."""

    def __init__(self, spec: StudySpec, metric_of: Callable[[Run], float | None]) -> None:
        """The order follows from `study.seed`; results change nothing."""
        self._order = configurations(spec)
        random.Random(derive_seed("random search", spec.study.seed)).shuffle(self._order)

    def propose(self, state: StudyState) -> dict[str, Any] | None:
        """The next configuration; None when all were proposed."""
        number = len(state.of_kind("search"))
        return self._order[number] if number < len(self._order) else None


@dataclass(frozen=True)
class Method:
    """How a search proposes and stops."""

    sampler: Callable[[StudySpec, Callable[[Run], float | None]], Any]
    scheduler: Literal["asha", "none"]


METHODS = {
    "synq-tune": Method(Sampler, "asha"),
    "random + ASHA": Method(RandomSearch, "asha"),
    "TPE, no early stopping": Method(Sampler, "none"),
    "random search": Method(RandomSearch, "none"),
}


@dataclass(frozen=True)
class Outcome:
    """What a search ended with."""

    state: StudyState
    epochs: int
    """Trained, by all its trials together."""

    @property
    def found(self) -> str | None:
        """Key of the configuration the study would export; None if no trial completed."""
        best = finalists(self.state, top=1)
        return configuration_key(best[0].params) if best else None


def replay(
    grid: Grid,
    method: Method,
    budget: int,
    num_trials: int,
    seed: int,
    metric: Metric = "top1",
    workers: int = 2,
) -> Outcome:
    """Run one search on the table until it is over or its budget is spent.

    Args:
        grid: recorded.
        method: one of METHODS, or another.
        budget: epochs that may be trained; an evaluation that would exceed it does not take place.
        num_trials: asked for, as with `study.num_trials`.
        seed: `study.seed`; the same seed gives the same outcome.
        metric: what is searched, stopped and chosen by.
        workers: trials at once.
    """
    study = grid.spec.study.model_copy(
        update={
            "num_trials": num_trials,
            "seed": seed,
            "metric": metric,
            "confirm": None,
            "scheduler": method.scheduler,
            "first": (),
            "target_loss": None,
        }
    )
    spec = grid.spec.model_copy(update={"study": study})
    sampler = method.sampler(spec, lambda run: objective(run.metrics, metric))
    search = _Search(grid, RunQueue(spec, sampler), metric, budget)
    return search.run(workers)


@dataclass
class _Search:
    grid: Grid
    queue: RunQueue
    metric: Metric
    budget: int
    epochs: int = 0
    upcoming: list[tuple[int, int, str]] = field(default_factory=list)
    """(tick, number of the trial, its key) of each evaluation to come."""

    def __post_init__(self) -> None:
        self.state = StudyState(self.queue.spec, {})
        self.scheduler = make_scheduler(self.queue.spec, self.state, self.metric)

    def run(self, workers: int) -> Outcome:
        for _ in range(workers):
            self._start(tick=0)
        while self.upcoming:
            tick, _, key = heapq.heappop(self.upcoming)
            if self._is_over(key, tick):
                self._start(tick)
            else:
                self._go_on(key, tick)
        return Outcome(self.state, self.epochs)

    def _apply(self, event: str, tick: int, **fields: Any) -> None:
        apply(self.state, {"event": event, "at": float(tick), **fields})

    def _start(self, tick: int) -> None:
        """A free worker takes the next search trial, if there is one and anything can be
        trained."""
        if self.epochs >= self.budget:
            return
        event = self.queue.propose(self.state)
        # After its search a study goes on with the ladder and the finalists' seeds.
        if not isinstance(event, dict) or event["kind"] != "search":
            return
        self._apply("proposed", tick, **event)
        self._apply("started", tick, key=event["key"])
        self.scheduler.on_trial_add(None, _as_tune(event["key"]))
        self._go_on(event["key"], tick)

    def _go_on(self, key: str, tick: int) -> None:
        """Train up to the next evaluation, unless the budget forbids."""
        run, row = self.state.runs[key], self._row(key)
        # Where the recorded trial diverged, it did so within a later epoch.
        upcoming = _next(row, run) or {"epoch": run.epochs_run + 1}
        cost = upcoming["epoch"] - run.epochs_run
        if self.epochs + cost <= self.budget:
            self.epochs += cost
            heapq.heappush(self.upcoming, (tick + cost, run.number or 0, key))

    def _is_over(self, key: str, tick: int) -> bool:
        """Record the evaluation that arrives; whether the trial ends with it."""
        entry = _next(self._row(key), self.state.runs[key])
        if entry is None:
            return self._finish(key, tick, "diverged")
        self._apply("evaluated", tick, key=key, losses={}, **entry)
        result = {"epoch": entry["epoch"], "objective": entry["metrics"][self.metric]}
        if entry["epoch"] == self.queue.spec.finetune.epochs:
            self.scheduler.on_trial_complete(None, _as_tune(key), result)
            return self._finish(key, tick, "completed")
        decision = self.scheduler.on_trial_result(None, _as_tune(key), result)
        return decision == self.scheduler.STOP and self._finish(key, tick, "stopped")

    def _finish(self, key: str, tick: int, state: str) -> bool:
        self._apply("finished", tick, key=key, state=state)
        return True

    def _row(self, key: str) -> Row:
        """The recorded trial this one repeats: of its configuration, with one of the table's
        seeds."""
        run, seeds = self.state.runs[key], self.grid.seeds
        number = derive_seed("row", self.queue.spec.study.seed, run.number or 0)
        return self.grid.row(configuration_key(run.params), seeds[number % len(seeds)])


def _next(row: Row, run: Run) -> dict[str, Any] | None:
    """The recorded evaluation after those the run has."""
    left = row["history"][len(run.history) :]
    return left[0] if left else None


def _as_tune(key: str) -> SimpleNamespace:
    """What a scheduler reads of a Tune trial."""
    return SimpleNamespace(trial_id=key, config={"run": {"kind": "search"}})
