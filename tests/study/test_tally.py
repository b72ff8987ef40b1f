"""What a driver knows of its runs without looking at all of them again."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from synq_tune.config.load import load_space
from synq_tune.study import summary
from synq_tune.study.files import needed_files
from synq_tune.study.progress import target_met
from synq_tune.study.state import Run, StudyState, apply, interrupt_running
from synq_tune.study.summary import best_run, finalists

ENDS = ("completed", "stopped", "diverged", "failed")


def _study(settings: list[str] | None = None) -> StudyState:
    return StudyState(load_space("digits_w3a3", ["study.metric=agreement", *(settings or [])]), {})


def _propose(state: StudyState, number: int, kind: str = "search") -> str:
    key = f"{kind}-{number}"
    apply(state, {"event": "proposed", "at": 1.0, "key": key, "kind": kind, "number": number,
                  "params": {"lr": number}, "seed": 0})  # fmt: skip
    apply(state, {"event": "started", "at": 2.0, "key": key})
    return key


def _end(state: StudyState, key: str, how: str, accuracy: float, seconds: float = 1.0) -> None:
    apply(state, {"event": "finished", "at": 3.0, "key": key, "state": how, "seconds": seconds,
                  "metrics": {"agreement": accuracy}})  # fmt: skip


def _agrees(state: StudyState) -> None:
    runs, tally = list(state.runs.values()), state.tally
    assert list(tally.unfinished.values()) == [run for run in runs if not run.is_final]
    for kind in ("search", "confirm"):
        over = [run for run in runs if run.kind == kind and run.is_final]
        assert tally.num_over(kind) == len(over)
        for how in ENDS:
            assert tally.num_over(kind, how) == sum(run.state == how for run in over)
        mean = sum(run.seconds for run in over) / len(over) if over else None
        assert tally.mean_seconds(kind) == pytest.approx(mean)
    done = [run for run in runs if run.kind == "search" and run.state == "completed"]
    assert (
        finalists(state, 3) == sorted(done, key=lambda r: (-r.metrics["agreement"], r.number))[:3]
    )


def test_a_tally_says_what_a_look_at_every_run_says() -> None:
    """After any sequence of proposals and ends, also in states that begin with runs."""
    generator, state, open_keys = random.Random(0), _study(), []
    for number in range(120):
        open_keys.append(_propose(state, number, generator.choice(("search", "confirm"))))
        if generator.random() < 0.8:
            key = open_keys.pop(generator.randrange(len(open_keys)))
            _end(state, key, generator.choice(ENDS), generator.randrange(40), generator.random())
        _agrees(state)
    interrupt_running(state)
    _agrees(state)
    _agrees(StudyState(state.spec, {}, dict(state.runs)))


def test_a_run_that_is_final_when_it_appears_counts() -> None:
    """As one read from elsewhere does."""
    state = _study()
    state.runs["a"] = Run("a", "search", 0, {}, 0, state="completed", metrics={"agreement": 1.0})
    _agrees(state)
    assert best_run(state) is state.runs["a"]


def test_each_run_is_ranked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver asks for the best at every transition: ten thousand trials would be sorted each
    time."""
    state, scored = _study(["study.target_loss=0.1"]), []
    original = summary.score
    monkeypatch.setattr(summary, "score", lambda run, m: scored.append(run) or original(run, m))
    for number in range(50):
        _end(state, _propose(state, number), "completed", number % 7)
        for _ in range(3):
            finalists(state, 3), best_run(state), target_met(state)
            needed_files(Path("study"), state)
    assert len(scored) == 50
