"""`confirm` judges every seed that was asked for: one that gives no value counts against."""

from __future__ import annotations

import random
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from synq_tune.config import Confirm
from synq_tune.config.load import load_space
from synq_tune.search.queue import RunQueue
from synq_tune.search.sampler import Sampler
from synq_tune.study.confirmed import confirm_lines
from synq_tune.study.state import Run, StudyState
from synq_tune.study.status import format_status
from synq_tune.study.summary import best_run, finalists, summarize

SPEC = load_space("digits_w3a3")
STATES = ("completed", "completed", "completed", "diverged", "failed", "interrupted", "running")


def _state(top: int = 2, seeds: int = 3, metric: str = "top1", trials: int = 12) -> StudyState:
    study = SPEC.study.model_copy(
        update={"confirm": Confirm(top=top, seeds=seeds), "metric": metric, "num_trials": trials}
    )
    return StudyState(SPEC.model_copy(update={"study": study}), {})


def _add(state: StudyState, key: str, number: int, how: str, **metrics: float) -> None:
    kind = "search" if key.startswith("trial") else "confirm"
    measured = metrics if how == "completed" else {}
    params = {"lr": 0.003 * (number + 1)}
    state.runs[key] = Run(key, kind, number, params, 0, state=how, metrics=measured)


def _study(state: StudyState, values: dict[int, list[float | str]]) -> StudyState:
    """Trial → its value, then those of its repeats; a word is the state of one without a value."""
    for number, row in values.items():
        for repeat, value in enumerate(row):
            key = f"confirm-{number:04d}-{repeat}" if repeat else f"trial-{number:04d}"
            if isinstance(value, str):
                _add(state, key, number, value)
            else:
                _add(state, key, number, "completed", top1=value)
    return state


def _best(state: StudyState) -> int | None:
    run = best_run(state)
    return None if run is None else run.number


CASES: dict[str, tuple[dict[int, list[float | str]], int]] = {
    "a lucky run whose repeats diverge": (
        {0: [95.0, "diverged", "diverged"], 1: [94.9, 94.8, 94.8]}, 1,
    ),
    "a failed repeat counts like a diverged one": ({0: [95.0, 95.0, "failed"], 1: [60.0] * 3}, 1),
    "all have failures: the fewest": (
        {0: [95.0, "diverged", "failed"], 1: [70.0, 70.0, "diverged"]}, 1,
    ),
    "as many failures: the mean of the rest": (
        {0: [95.0, 60.0, "diverged"], 1: [90.0, "failed", 90.0]}, 1,
    ),
    "interrupted repeats are still to be run": ({0: [95.0, 95.0, "interrupted"], 1: [90.0] * 3}, 1),
    "too few repeats do not compete": ({0: [95.0, 95.0], 1: [90.0] * 3}, 1),
    "equal means go to the earlier trial": ({0: [1.1, 2.2, 3.3], 1: [3.3, 2.2, 1.1]}, 0),
    "nobody is judged yet": ({0: [95.0, "running"], 1: [94.0]}, 0),
}  # fmt: skip


@pytest.mark.parametrize(("values", "expected"), CASES.values(), ids=CASES.keys())
def test_every_seed_counts(values: dict[int, list[float | str]], expected: int) -> None:
    """Few failures first, then the mean of what completed."""
    assert _best(_study(_state(), values)) == expected


def _brute_force(state: StudyState, seeds: int) -> int | None:
    """Pairwise: nobody beats the best, who has fewer bad seeds, or as many and a better mean."""
    search = [r for r in state.of_kind("search") if r.state == "completed" and "top1" in r.metrics]
    groups: dict[int, list[Run]] = {
        r.number: [r, *(c for c in state.of_kind("confirm") if c.number == r.number)]
        for r in search
    }
    judged = {
        n: runs for n, runs in groups.items()
        if len(runs) >= seeds and len(runs) > 1
        and not {"running", "interrupted"} & {r.state for r in runs}
    }  # fmt: skip
    if not judged:
        return min((-r.metrics["top1"], r.number) for r in search)[1] if search else None
    keys = {}
    for number, runs in judged.items():
        good = [r.metrics["top1"] for r in runs if r.state == "completed" and "top1" in r.metrics]
        keys[number] = (len(runs) - len(good), -fmean(good), number)
    return min(keys, key=keys.get)


@pytest.mark.parametrize("seed", range(60))
def test_the_choice_is_a_brute_forces(seed: int) -> None:
    """On random studies: ties, missing metrics, any `top`, any number of repeats in any state."""
    generator = random.Random(seed)
    seeds = generator.randint(2, 4)
    state = _state(generator.randint(1, 9), seeds)
    for number in range(generator.randint(0, 6)):
        row = [generator.choice(STATES) for _ in range(generator.randint(1, seeds + 1))]
        for repeat, how in enumerate(row):
            key = f"confirm-{number:04d}-{repeat}" if repeat else f"trial-{number:04d}"
            measured = (
                {} if generator.random() < 0.1 else {"top1": float(generator.randint(90, 93))}
            )
            _add(state, key, number, how, **measured)
    assert _best(state) == _brute_force(state, seeds)
    summary = summarize(state, Path("x"))
    assert (summary["best"] or {}).get("number") == _best(state)
    for found in summary["finalists"]:
        assert sum(found["states"].values()) == found["seeds"]


def _proposed(state: StudyState) -> list[Any]:
    """Keys that the queue proposes now, one after another, as if each were only started."""
    queue = RunQueue(state.spec, Sampler(state.spec, lambda run: run.metrics.get("top1")))
    keys = []
    while isinstance(event := queue.propose(state), dict):
        keys.append(event["key"])
        _add(state, event["key"], event["number"] or 0, "running")
        state.runs[event["key"]].kind = event["kind"]
    return keys


@pytest.mark.parametrize(("top", "expected"), [(1, [2]), (2, [2, 0]), (5, [2, 0, 1])])
def test_finalists_with_ties_and_fewer_trials_than_asked_for(top: int, expected: list[int]) -> None:
    """Equal ones by their number; with fewer trials than `top` all; each repeat is proposed once."""
    state = _study(_state(top, trials=3), {0: [94.0], 1: [94.0], 2: [95.0]})
    assert [run.number for run in finalists(state, top)] == expected
    repeats = [key for key in _proposed(state) if key.startswith("confirm")]
    assert repeats == [f"confirm-{n:04d}-{r}" for n in expected for r in (1, 2)]
    assert [key for key in _proposed(state) if key.startswith("confirm")] == []


def test_seeds_already_run_are_not_run_again() -> None:
    """Whatever state they are in: an interrupted one goes on as itself."""
    state = _study(_state(trials=2), {0: [95.0, 95.0], 1: [94.0, "interrupted", "diverged"]})
    repeats = [key for key in _proposed(state) if key.startswith("confirm")]
    assert repeats == ["confirm-0000-2"]


def test_a_calibration_among_the_finalists_is_judged_like_the_others() -> None:
    """It is a configuration of no epochs: its seeds order the batches that it observes."""
    state = _study(_state(), {0: [95.0, 94.0, 94.0], 1: [94.5, 94.5, 94.5]})
    state.runs["trial-0000"].params = {"epochs": 0}
    assert _best(state) == 1


def test_it_is_said(tmp_path: Path) -> None:
    """Status and summary name the seeds that gave nothing; the best comes first."""
    state = _study(_state(), {0: [95.0, "diverged", "diverged"], 1: [94.9, 94.8, 94.8]})
    assert confirm_lines(state) == [
        "trial 1: top1 94.83 on average of 3 seeds",
        "trial 0: top1 95.00; 2 of 3 seeds diverged",
    ]
    assert "2 of 3 seeds diverged" in format_status(state, tmp_path)
    finalist = summarize(state, tmp_path)["finalists"][0]
    assert finalist["states"] == {"completed": 1, "diverged": 2}
