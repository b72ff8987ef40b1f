"""Same seed, same study: whatever finishes first, and however often the driver is killed."""

from __future__ import annotations

import random
import zlib
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from synq_tune.config import Study, StudySpec
from synq_tune.config.load import load_space
from synq_tune.search.logical_time import as_known, waiting_line
from synq_tune.search.queue import WAIT, RunQueue
from synq_tune.search.resources import plan_resources
from synq_tune.search.sampler import Sampler
from synq_tune.search.schedulers import make_scheduler
from synq_tune.store import canonical_json
from synq_tune.study.state import StudyState, apply

EPOCHS, RUNGS = 9, (1, 3, 9)


def _spec(*sets: str) -> StudySpec:
    small = [f"finetune.epochs={EPOCHS}", "study.num_trials=14", "study.confirm={top: 1, seeds: 2}"]
    return load_space("digits_w3a3", [*small, "study.deterministic=3", *sets])


def _value(params: dict[str, Any], epoch: int) -> float:
    """An accuracy that only configuration and epoch decide; one in six diverges."""
    draw = zlib.crc32(canonical_json(params).encode())
    return draw % 9000 / 100 + epoch


def _diverges(params: dict[str, Any]) -> bool:
    return zlib.crc32(canonical_json(params).encode()) % 6 == 0


class World:
    """Workers without a clock: `order` decides which of the running trials gets on next."""

    def __init__(self, spec: StudySpec, places: int, order: random.Random, kills: float) -> None:
        self.spec, self.places, self.order, self.kills = spec, places, order, kills
        self.state = StudyState(spec, {})
        self.running: dict[str, int] = {}
        self._restart()

    def _restart(self) -> None:
        """A new driver: sampler, scheduler and running trials begin anew, the ledger stays."""
        metric_of = lambda run: run.metrics.get("top1")  # noqa: E731
        self.queue = RunQueue(self.spec, Sampler(self.spec, metric_of))
        self.scheduler = make_scheduler(self.spec, self.state, "top1")
        self.running = {}

    def _append(self, event: str, **fields: Any) -> None:
        apply(self.state, {"event": event, "at": 0.0, **fields})

    def run(self) -> StudyState:
        """Drive the study to its end."""
        while not (not self.running and self.queue.is_done(self.state)):
            self._fill()
            if self.order.random() < self.kills:
                self._restart()
                continue
            self._step(self.order.choice(sorted(self.running)))
        return self.state

    def _fill(self) -> None:
        while len(self.running) < self.places:
            open_ = (r.key for r in self.state.runs.values() if not r.is_final)
            key = next((k for k in open_ if k not in self.running), None)
            if key is None:
                event = self.queue.propose(self.state)
                if event is None or event == WAIT:
                    return
                self._append("proposed", **event)
                key = event["key"]
            self._append("started", key=key)
            self.running[key] = 0
            self.scheduler.on_trial_add(None, self._tune_trial(key))

    def _step(self, key: str) -> None:
        """Up to the next rung of one trial, and Tune's answer."""
        run, rung = self.state.runs[key], self.running[key]
        params = {"key": key} if run.kind != "search" else run.params
        if run.kind == "search" and _diverges(params):
            self._finish(key, "diverged", {})
            return
        epoch = RUNGS[rung]
        metrics = {"top1": _value(params, epoch)}
        result = {"epoch": epoch, "objective": metrics["top1"]}
        decision = self.scheduler.on_trial_result(None, self._tune_trial(key), result)
        self._append("evaluated", key=key, epoch=epoch, metrics=metrics, losses={})
        self.running[key] += 1
        if epoch == EPOCHS:
            self._finish(key, "completed", metrics)
        elif decision == TrialScheduler.STOP:
            self._finish(key, "stopped", metrics)

    def _tune_trial(self, key: str) -> SimpleNamespace:
        run = {"key": key, "kind": self.state.runs[key].kind}
        return SimpleNamespace(trial_id=key, config={"run": run})

    def _finish(self, key: str, state: str, metrics: dict[str, float]) -> None:
        self._append("finished", key=key, state=state, metrics=metrics, seconds=1.0)
        del self.running[key]


def _story(state: StudyState) -> list[tuple[str, dict[str, Any], int, str]]:
    """Each configuration, its seed and what became of it, in the order of numbers."""
    runs = [*state.of_kind("search"), *state.of_kind("confirm")]
    return [(run.key, run.params, run.seed, run.state) for run in runs]


def _told(seed: int, places: int = 3, kills: float = 0.0, **changes: str) -> list[tuple]:
    spec = _spec(*(f"study.{key}={value}" for key, value in changes.items()))
    return _story(World(spec, places, random.Random(seed), kills).run())


@pytest.fixture(scope="module")
def story() -> list[tuple]:
    """The study when everything goes its way."""
    return _told(seed=0)


def test_the_story_is_worth_telling(story: list[tuple]) -> None:
    """All ends occur, so that a difference in any of them would show."""
    assert {state for *_, state in story} == {"completed", "stopped", "diverged"}


@pytest.mark.parametrize("seed", range(1, 9))
def test_the_order_of_finishing_changes_nothing(story: list[tuple], seed: int) -> None:
    """Shuffled completions: the same configurations, the same ends, the same finalist."""
    assert _told(seed) == story


@pytest.mark.parametrize("seed", range(1, 7))
def test_kills_and_resumes_change_nothing(story: list[tuple], seed: int) -> None:
    """Every driver begins with the ledger alone."""
    assert _told(seed, kills=0.15) == story


@pytest.mark.parametrize("places", [1, 2])
def test_a_smaller_machine_changes_nothing(story: list[tuple], places: int) -> None:
    """Fewer trials at once take longer; the sequence follows from the width alone."""
    assert _told(seed=3, places=places) == story


def test_without_it_the_order_matters() -> None:
    """Both tests above could fail: with ASHA as results come, they would."""
    stories = [_told(seed, deterministic="null") for seed in range(4)]
    assert any(story != stories[0] for story in stories)


def test_a_trial_knows_those_before_its_companions() -> None:
    """Proposal k sees trials 0 … k-width; the others seem to run, even if they are over."""
    state = World(_spec(), 3, random.Random(0), 0.0).run()
    known = as_known(state, 5, 3)
    assert [run.is_final for run in known.of_kind("search")][:5] == [True] * 3 + [False] * 2


def test_threads_do_not_depend_on_the_machine() -> None:
    """The order in which threads add decides the last bits of a sum."""
    plans = [plan_resources(Study(deterministic=3), [(cpus, 0)]) for cpus in (1, 2, 64)]
    assert {plan.threads for plan in plans} == {1}
    assert [plan.max_concurrent for plan in plans] == [1, 2, 3]


def test_the_cost_of_waiting_is_told() -> None:
    """Places that stood empty until the last proposal, over all there were."""
    state = StudyState(_spec(), {})
    times = [(0.0, 10.0), (0.0, 30.0), (10.0, 20.0), (30.0, 40.0)]
    events = [("proposed", 0.0, n) for n in range(4)]
    events += [("started", begin, n) for n, (begin, _) in enumerate(times)]
    events += [("finished", end, n) for n, (_, end) in enumerate(times)]
    for event, at, number in events:
        fields: dict[str, Any] = {"key": f"trial-{number:04d}"}
        if event == "proposed":
            fields |= {"kind": "search", "number": number, "params": {"lr": number}, "seed": 0}
        if event == "finished":
            fields |= {"state": "stopped", "metrics": {}}
        apply(state, {"event": event, "at": at, **fields})
    line = waiting_line(state, 2)
    assert "10 of 60 seconds of 2 places empty (17 %)" in line
    assert waiting_line(StudyState(_spec(), {}), 2) is None
