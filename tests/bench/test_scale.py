"""What a driver costs a trial, and the model that reads larger clusters off it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from synq_tune.bench import scale
from synq_tune.bench.cpu_watch import CpuWatch
from synq_tune.bench.scale_model import Driver, Line, filled_share, read_off
from synq_tune.bench.simulated import messages
from synq_tune.bench.simulated_study import SimulatedDriver, evaluated_epochs, with_header
from synq_tune.config.load import load_space
from synq_tune.errors import InputError
from synq_tune.search.resources import ROUND_TRIALS, plan_resources
from synq_tune.study.ledger import Ledger


def _burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_a_part_counts_without_what_is_watched_inside_it() -> None:
    """Time that it waits is in its wall seconds alone."""
    watch = CpuWatch()
    inner = watch.watched(lambda: _burn(0.06), "inner")

    def work() -> None:
        _burn(0.02)
        inner()
        time.sleep(0.05)

    watch.watched(work, "outer")()
    assert watch.calls == {"inner": 1, "outer": 1}
    assert 0.06 <= watch.cpu["inner"] < 0.1
    assert 0.02 <= watch.cpu["outer"] < 0.05 < watch.wall["outer"]


def test_a_line_goes_through_two_points_and_never_falls() -> None:
    """A part that was measured cheaper with more trials is taken to cost the same."""
    line = Line.through((0, 2.0), (1000, 12.0))
    assert (line(0), line(1000), line(10_000)) == pytest.approx((2.0, 12.0, 102.0))
    assert Line.through((0, 3.0), (1000, 2.0))(5000) == 2.5


def test_a_driver_is_as_fast_as_its_slower_half() -> None:
    """Threads of one Python take turns at the CPU; the disk is waited for meanwhile."""
    computing = Driver({"ledger": Line(10.0), "proposal": Line(0.0, 0.01)}, {"mlflow": Line(70.0)})
    assert computing.cpu(1000) == computing.busy(1000) == 90.0
    assert computing.trials_per_hour(1000) == 40_000
    assert (computing.largest(0), computing.largest(9000)) == ("mlflow", "proposal")
    assert computing.mean_busy(2000) == pytest.approx(90.0)
    waiting = Driver({"ledger": Line(10.0)}, {"mlflow": Line(20.0)}, waiting=50.0)
    assert waiting.busy(0) == 60.0


@pytest.mark.parametrize(
    ("places", "trials", "in_round", "expected"),
    [(250, 1000, 250, 1.0), (1000, 10_000, 250, 0.25), (1000, 10_000, 8000, 1.0), (200, 250, 250, 0.625)],
)  # fmt: skip
def test_rounds_leave_places_empty(
    places: int, trials: int, in_round: int, expected: float
) -> None:
    """A round of 250 trials fills a quarter of 1,000 places."""
    assert filled_share(places, trials, in_round) == expected


def test_the_first_bottleneck_is_named() -> None:
    """What leaves the smallest share of the trials that the places alone would do."""
    driver = Driver({"ledger": Line(360.0)}, {})
    short = read_off(driver, 1000, 10_000, 1.0, 8000, 3.6e6)
    assert (short.bottleneck, short.trials_per_hour, short.wanted) == ("driver", 10_000, 60_000)
    assert short.megabytes == 60.0
    hours = read_off(driver, 1000, 10_000, 60.0, 250, 0.0)
    assert (hours.bottleneck, hours.trials_per_hour) == ("rounds", 250)
    assert read_off(driver, 1000, 10_000, 60.0, 8000, 0.0).bottleneck == "places"


def test_a_round_fills_the_places_of_a_large_cluster() -> None:
    """Until the last trial of a round is over, no place gets one of the next."""
    study = load_space("digits_w3a3", ["study.max_concurrent=auto"]).study
    small, large = (plan_resources(study, [(8.0, 8.0)] * nodes, 1) for nodes in (1, 125))
    assert (small.max_concurrent, small.round_trials) == (8, ROUND_TRIALS)
    assert (large.max_concurrent, large.round_trials) == (1000, 8000)
    assert filled_share(1000, 10_000, large.round_trials) == 1.0


def test_a_simulated_trial_says_what_a_real_one_says() -> None:
    """Losses of every epoch, metrics of the evaluated ones, states before the end."""
    told = {"metric": "agreement", "evaluated": [3, 9, 24], "state_bytes": 30, "student_bytes": 10}
    rows = list(messages({"lr": 0.1}, told))
    assert [row["epoch"] for row in rows] == [3, 9, 24]
    assert [int(e) for row in rows for e in (*row["earlier"], row["epoch"])] == list(range(1, 25))
    assert [len(row["payload"].take()) for row in rows] == [30, 30, 10]
    assert [row.get("done", False) for row in rows] == [False, False, True]


def test_earlier_trials_are_replayed_as_a_study_s_own(tmp_path: Path) -> None:
    """Their ledger is one that a driver can open and go on with."""
    spec = load_space("digits_w3a3")
    with_header(spec, tmp_path / "study", 20)
    state = Ledger.open(tmp_path / "study").state
    assert state.tally.num_over("search", "completed") == len(state.runs) == 20
    assert [row["epoch"] for row in state.runs["trial-0019"].history] == evaluated_epochs(spec)


def test_a_space_that_is_too_small_is_refused() -> None:
    """Before anything is measured."""
    with pytest.raises(InputError, match="has 9124 configurations"):
        scale.bench_scale(load_space("digits_w3a3"), 64, None)


@pytest.mark.slow
def test_a_driver_of_few_workers_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part is watched, alone and on two raylets, and every trial arrives once."""
    small = {"PLACES": 6, "FEW_PLACES": 2, "MANY": 300, "WATCHED": 12}
    for name, value in small.items():
        monkeypatch.setattr(scale, name, value)
    states, close = [], SimulatedDriver.close
    monkeypatch.setattr(
        SimulatedDriver, "close", lambda self: (states.append(self.ledger.replay()), close(self))
    )
    report = scale.bench_scale(load_space("digits_w3a3"), 24, None)
    assert all(report.numbers[f"{part}_ms"] > 0 for part in (*scale.PARTS, "ray"))
    assert report.numbers["measured_ms"] == pytest.approx(sum(report.numbers["measured"].values()))
    assert 0.2 < report.numbers["measured_ms"] / report.numbers["predicted_ms"] < 5
    assert [state.tally.num_over("search", "completed") for state in states] == [12, 312, 8, 24]
    last = states[-1].of_kind("search")
    assert all([row["epoch"] for row in run.history] == [3, 9, 24] for run in last)
