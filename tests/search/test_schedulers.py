"""Early stopping at whatever epochs are evaluated: as an oracle says, and the same after a restart."""

from __future__ import annotations

import itertools
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import TrialScheduler

from synq_tune.config import StudySpec
from synq_tune.config.load import load_space
from synq_tune.search.schedulers import make_scheduler
from synq_tune.study.state import StudyState, apply
from synq_tune.trial.rungs import grace_epochs, is_evaluated

BASE = load_space("digits_w3a3")
STOP = TrialScheduler.STOP


def _spec(epochs: int, eval_every: Any, width: int | None) -> StudySpec:
    study = BASE.study.model_copy(update={"eval_every": eval_every, "deterministic": width})
    finetune = BASE.finetune.model_copy(update={"epochs": epochs})
    return BASE.model_copy(update={"study": study, "finetune": finetune})


def _draw(generator: random.Random) -> tuple[int, Any, int]:
    epochs = generator.randint(1, 40)
    every = generator.choice(["auto", generator.randint(1, epochs + 3)])
    return epochs, every, generator.randint(1, 5)


class Study:
    """Trials of given values, of which anyone may go on next."""

    def __init__(self, spec: StudySpec, values: list[dict[int, float]]) -> None:
        self.spec, self.values, self.state = spec, values, StudyState(spec, {})
        evaluated, epochs = is_evaluated(spec, spec.finetune.epochs), spec.finetune.epochs
        self.epochs = [e for e in range(1, epochs + 1) if evaluated(e)]
        self.stopped: dict[int, int] = {}

    def append(self, event: str, **fields: Any) -> None:
        apply(self.state, {"event": event, "at": 0.0, **fields})

    def start(self, number: int) -> SimpleNamespace:
        key = f"trial-{number:04d}"
        self.append("proposed", key=key, kind="search", number=number, params={}, seed=0)
        self.append("started", key=key)
        return self.trial(number)

    def trial(self, number: int, again: int = 0) -> SimpleNamespace:
        """What Tune knows; its own identity differs when a run is tried again."""
        run = {"key": f"trial-{number:04d}", "kind": "search", "number": number}
        return SimpleNamespace(trial_id=f"tune-{number}-{again}", config={"run": run})

    def report(self, scheduler: Any, number: int, epoch: int) -> bool:
        """One evaluation, decided on before it is recorded, as by Tune; whether the trial is over."""
        trial, value = self.trial(number), self.values[number][epoch]
        result = {"epoch": epoch, "objective": value}
        is_last = epoch == self.spec.finetune.epochs
        if is_last:
            scheduler.on_trial_complete(None, trial, result)
        stops = not is_last and scheduler.on_trial_result(None, trial, result) == STOP
        self.record(number, epoch, "completed" if is_last else "stopped" if stops else None)
        return is_last or stops

    def record(self, number: int, epoch: int, state: str | None) -> None:
        key, metrics = f"trial-{number:04d}", {"top1": self.values[number][epoch]}
        kept = {} if state else {"kept_sha256": "x"}
        self.append("evaluated", key=key, epoch=epoch, metrics=metrics, losses={}, **kept)
        if state:
            self.append("finished", key=key, state=state, metrics={}, epochs_run=epoch)
        if state == "stopped":
            self.stopped[number] = epoch


def _oracle(study: Study, width: int) -> dict[int, int]:
    """Trial → epoch at which it is stopped, by the first evaluated epoch at or behind each rung."""
    epochs, grace = study.spec.finetune.epochs, grace_epochs(study.spec.finetune.epochs)
    if epochs < 3:
        return {}
    at = {r: next((e for e in study.epochs if e >= r), epochs) for r in (grace, 3 * grace)}
    judged = sorted(set(at.values()) - {epochs})
    stopped: dict[int, int] = {}
    for number in range(len(study.values)):
        for epoch in judged:
            known = range(number - width + 1)
            rivals = [study.values[k][epoch] for k in known if stopped.get(k, epochs) >= epoch]
            if rivals and study.values[number][epoch] < np.percentile(rivals, 200 / 3):
                stopped[number] = epoch
                break
    return stopped


def _values(generator: random.Random, trials: int, epochs: int) -> list[dict[int, float]]:
    ties = generator.random() < 0.3
    draw = (lambda: float(generator.randint(0, 4))) if ties else generator.random
    return [{epoch: draw() for epoch in range(1, epochs + 1)} for _ in range(trials)]


@pytest.mark.parametrize("seed", range(40))
def test_logical_time_stops_what_an_oracle_says(seed: int) -> None:
    """For any epochs and any `eval_every`, with the trials advancing in any order."""
    generator = random.Random(seed)
    epochs, every, width = _draw(generator)
    study = Study(_spec(epochs, every, width), _values(generator, 12, epochs))
    scheduler = make_scheduler(study.spec, study.state, "top1")
    waiting, running = list(range(12)), {}
    while waiting or running:
        over = {r.number for r in study.state.runs.values() if r.is_final}
        if (
            waiting
            and len(running) < width
            and all(k in over for k in range(waiting[0] - width + 1))
        ):
            number = waiting.pop(0)
            scheduler.on_trial_add(None, study.start(number))
            running[number] = iter(study.epochs)
            continue
        number = generator.choice(list(running))
        if study.report(scheduler, number, next(running[number])):
            del running[number]
    assert study.stopped == _oracle(study, width)


def test_the_oracle_stops_trials_wherever_one_is_evaluated_early() -> None:
    """The property is not empty: most schedules stop something, and only those without a rung nothing."""
    stops = {}
    for epochs, every in itertools.product((3, 10, 24), (1, 2, 5, 30)):
        values = [{e: 90.0 - n for e in range(1, epochs + 1)} for n in range(12)]
        stops[epochs, every] = len(_oracle(Study(_spec(epochs, every, 2), values), 2))
    assert all((count > 0) == (every < epochs) for (epochs, every), count in stops.items())


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("is_ordered", [False, True])
def test_a_restarted_driver_decides_as_the_one_before(seed: int, is_ordered: bool) -> None:
    """Before each result a fresh scheduler, made from the ledger, gives the decision of the first one."""
    generator = random.Random(seed)
    epochs, every, width = _draw(generator)
    study = Study(
        _spec(epochs, every, width if is_ordered else None), _values(generator, 8, epochs)
    )
    live = make_scheduler(study.spec, study.state, "top1")
    left = {number: list(study.epochs) for number in range(8)}
    for number in left:
        live.on_trial_add(None, study.start(number))
    while left:
        number = generator.choice(list(left))
        result = {"epoch": left[number].pop(0)}
        result["objective"] = study.values[number][result["epoch"]]
        fresh, again = make_scheduler(study.spec, study.state, "top1"), study.trial(number, again=1)
        fresh.on_trial_add(None, again)
        if result["epoch"] != epochs:
            decision = fresh.on_trial_result(None, again, result)
            assert decision == live.on_trial_result(None, study.trial(number), result)
        is_last = result["epoch"] == epochs
        state = "completed" if is_last else "stopped" if decision == STOP else None
        study.record(number, result["epoch"], state)
        if state:
            del left[number]


def test_a_run_that_is_tried_again_counts_once() -> None:
    """Its worker died and it goes on as another trial of Tune: its value at the rung is one, not two."""
    study = Study(_spec(24, "auto", None), [{3: v, 9: v, 24: v} for v in (90.0, 80.0, 85.0)])
    scheduler = make_scheduler(study.spec, study.state, "top1")
    for number, times in ((0, 1), (1, 3)):
        for again in range(times):
            trial = study.trial(number, again)
            scheduler.on_trial_add(None, trial)
            result = {"epoch": 3, "objective": study.values[number][3]}
            scheduler.on_trial_result(None, trial, result)
            scheduler.on_trial_remove(None, trial)
    last = study.trial(2)
    scheduler.on_trial_add(None, last)
    # Two thirds of the way from 80 to 90 is 86.7; with three more 80s it would be 80.
    assert scheduler.on_trial_result(None, last, {"epoch": 3, "objective": 85.0}) == STOP


def test_a_finished_trials_last_value_is_no_rungs() -> None:
    """Epochs may be searched: a trial of ten is over, on all images, where one of 24 is in the middle."""
    for width in (None, 1):
        study = Study(_spec(24, 1, width), [{6: 50.0, 10: 99.0}, {e: 60.0 for e in range(1, 25)}])
        scheduler = make_scheduler(study.spec, study.state, "top1")
        scheduler.on_trial_add(None, study.start(0))
        study.record(0, 6, None)
        study.record(0, 10, "completed")
        scheduler = make_scheduler(study.spec, study.state, "top1")
        scheduler.on_trial_add(None, study.start(1))
        assert not any(study.report(scheduler, 1, epoch) for epoch in range(1, 24))
