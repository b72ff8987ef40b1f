"""What a search says of its runs before it starts, and while it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from synq_tune.config.load import load_space
from synq_tune.search.planned import (
    how_far_line,
    num_done,
    planned_line,
    planned_runs,
    runs_left,
    seconds_left,
)
from synq_tune.search.queue import RunQueue
from synq_tune.search.sampler import Sampler
from synq_tune.study.ledger import Ledger

SETS = ["study.num_trials=4", "study.confirm={top: 3, seeds: 3}"]


def _ledger(folder: Path, *sets: str) -> Ledger:
    return Ledger.create(folder, load_space("digits_w3a3", [*SETS, *sets]))


def _run(ledger: Ledger, event: dict, state: str = "completed", seconds: float = 60.0) -> None:
    ledger.append("proposed", **event)
    ledger.append("started", key=event["key"])
    value = 50.0 + (event["number"] or 0)
    ledger.append("evaluated", key=event["key"], epoch=24, metrics={"top1": value}, losses={})
    ledger.append(
        "finished", key=event["key"], state=state, epochs_run=24, metrics={}, seconds=seconds
    )


def _queue(ledger: Ledger) -> RunQueue:
    spec = ledger.state.spec
    return RunQueue(spec, Sampler(spec, lambda run: run.metrics.get("top1")))


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ([], "11 runs: 4 trials, 3 × 2 to confirm, 1 of the paper's defaults"),
        (["study.num_trials=2"], "7 runs: 2 trials, 2 × 2 to confirm, 1 of the paper's defaults"),
        (["study.num_trials=1", "study.confirm=null"],
         "2 runs: 1 trial, 1 of the paper's defaults"),
        (["finetune.epochs=0"], "1 run: calibration only, nothing is trained"),
        (["study.target_loss=1.0"],
         "at most 11 runs: 4 trials, 3 × 2 to confirm, 1 of the paper's defaults"),
    ],
)  # fmt: skip
def test_a_search_says_how_many_runs_it_will_make(
    tmp_path: Path, sets: list[str], said: str
) -> None:
    """Trials, the finalists' other seeds and the paper's defaults, in one line."""
    assert planned_line(_ledger(tmp_path / "study", *sets).state) == said


@pytest.mark.parametrize("states", [["completed"] * 4, ["stopped", "diverged", "completed"] * 2])
def test_what_is_said_is_what_the_queue_proposes(tmp_path: Path, states: list[str]) -> None:
    """From the first run to the last, done and left add up, and nothing is left at the end."""
    ledger = _ledger(tmp_path / "study")
    queue, totals = _queue(ledger), []
    for state in (*states[:4], *["completed"] * 20):
        totals.append(num_done(ledger.state) + sum(runs_left(ledger.state)))
        event = queue.propose(ledger.state)
        if event is None:
            break
        _run(ledger, event, state if event["kind"] == "search" else "completed")
    assert queue.is_done(ledger.state) and runs_left(ledger.state) == (0, 0)
    assert totals[0] == planned_runs(ledger.state.spec).total
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] == len(ledger.state.runs)


def test_on_resume_it_says_how_many_are_over(tmp_path: Path) -> None:
    """The line counts the whole study, not what this driver adds."""
    ledger = _ledger(tmp_path / "study")
    for _ in range(2):
        _run(ledger, _queue(ledger).propose(ledger.state))
    assert planned_line(ledger.state).endswith("; 2 of them are over")


def test_the_time_left_follows_from_what_runs_took(tmp_path: Path) -> None:
    """Trials count as the mean of trials, the runs after them as one that went to its end."""
    ledger = _ledger(tmp_path / "study")
    assert seconds_left(ledger.state, 2, now=0.0) is None
    _run(ledger, _queue(ledger).propose(ledger.state), "completed", seconds=90.0)
    _run(ledger, _queue(ledger).propose(ledger.state), "stopped", seconds=30.0)
    # 2 trials of 60 s; repeats of 3 finalists at most, and the defaults, of 90 s each.
    assert seconds_left(ledger.state, 1, now=0.0) == 2 * 60 + (3 * 2 + 1) * 90
    assert seconds_left(ledger.state, 2, now=0.0) == (2 * 60 + (3 * 2 + 1) * 90) / 2
    event = _queue(ledger).propose(ledger.state)
    ledger.append("proposed", **event)
    started = ledger.append("started", key=event["key"])["at"]
    assert seconds_left(ledger.state, 1, now=started + 20) == pytest.approx(750 - 20)
    assert seconds_left(ledger.state, 1, now=started + 10_000) == pytest.approx(750 - 60)
    assert seconds_left(ledger.state, 1, now=started - 10_000) == pytest.approx(750)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "7 of 11 runs"),
        (0.0, "7 of 11 runs, about 1 s left"),
        (42.4, "7 of 11 runs, about 42 s left"),
        (715.0, "7 of 11 runs, about 12 min left"),
        (9000.0, "7 of 11 runs, about 2.5 h left"),
    ],
)
def test_how_far_it_is_stands_in_a_few_words(seconds: float | None, said: str) -> None:
    """Seconds, minutes or hours, as one reads them."""
    assert how_far_line(7, 4, seconds) == said


def test_a_finished_search_has_no_time_left() -> None:
    """All runs, and nothing more."""
    assert how_far_line(11, 0, 0.0) == "11 of 11 runs"
