"""What the driver decides before and between trials: shares, early stopping, what comes next."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from synq_tune.config import Study, StudySpec
from synq_tune.config.load import load_space
from synq_tune.config.metrics import objective
from synq_tune.errors import InputError
from synq_tune.search.queue import WAIT, RunQueue
from synq_tune.search.resources import plan_resources
from synq_tune.search.sampler import Sampler
from synq_tune.search.schedulers import SearchAsha, make_scheduler
from synq_tune.search.tune_adapter import LedgerSearcher
from synq_tune.study.ledger import Ledger
from synq_tune.trial.requirements import resolve_metric
from synq_tune.trial.rungs import grace_epochs, is_evaluated

SPEC = load_space("digits_w3a3", ["study.num_trials=3", "study.confirm={top: 1, seeds: 2}"])


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.create(tmp_path / "study", SPEC)


def _run(
    ledger: Ledger, event: dict, curve: dict[int, float], state: str = "completed",
    metric: str = "top1",
) -> None:  # fmt: skip
    key = event["key"]
    ledger.append("proposed", **event)
    ledger.append("started", key=key)
    for epoch, value in curve.items():
        ledger.append("evaluated", key=key, epoch=epoch, metrics={metric: value}, losses={})
    ledger.append("finished", key=key, state=state, epochs_run=max(curve), metrics={}, seconds=1.0)


def _trial(kind: str, name: str = "x") -> SimpleNamespace:
    return SimpleNamespace(trial_id=name, config={"run": {"kind": kind}})


@pytest.mark.parametrize(
    ("settings", "cpus", "gpus", "expected"),
    [
        ({}, 2, 0, (2, 1.0, 0.0, 1)),
        ({"max_concurrent": 1}, 2, 0, (1, 2.0, 0.0, 2)),
        ({"max_concurrent": 4}, 2, 0, (4, 0.5, 0.0, 1)),
        ({}, 16, 2, (2, 8.0, 1.0, 8)),
        ({"gpus_per_trial": 0.25}, 16, 1, (4, 4.0, 0.25, 4)),
        ({"gpus_per_trial": 0.25, "max_concurrent": 2}, 16, 1, (2, 8.0, 0.25, 8)),
        ({"gpus_per_trial": 1.0, "max_concurrent": 8}, 16, 2, (2, 8.0, 1.0, 8)),
    ],
)
def test_shares_add_up_to_the_machine(
    settings: dict, cpus: int, gpus: int, expected: tuple[float, ...]
) -> None:
    """(concurrent, CPUs, GPUs, threads): no trial waits for a core that is free, none shares one."""
    plan = plan_resources(Study(**settings), [(cpus, gpus)])
    found = (plan.max_concurrent, plan.cpus_per_trial, plan.gpus_per_trial, plan.threads)
    assert found == expected
    assert plan.max_concurrent * plan.cpus_per_trial <= cpus


@pytest.mark.parametrize(
    ("settings", "machines", "expected"),
    [
        ({}, [(4, 0), (2, 0)], (6, 1.0, 0.0, 1)),
        ({"max_concurrent": 1}, [(1, 0), (1, 0)], (1, 1.0, 0.0, 1)),
        ({"max_concurrent": 3}, [(8, 0), (4, 0)], (3, 4.0, 0.0, 4)),
        ({}, [(4, 0), (8, 1)], (1, 8.0, 1.0, 8)),
        ({}, [(0, 0), (8, 2), (16, 2)], (4, 4.0, 1.0, 4)),
        ({"gpus_per_trial": 0.4}, [(8, 1), (8, 1)], (4, 4.0, 0.4, 4)),
    ],
)
def test_every_trial_finds_a_machine(
    settings: dict, machines: list[tuple[int, int]], expected: tuple[float, ...]
) -> None:
    """A trial runs on one machine: a share of a cluster's sum may be more than any machine has."""
    plan = plan_resources(Study(**settings), machines)
    found = (plan.max_concurrent, plan.cpus_per_trial, plan.gpus_per_trial, plan.threads)
    assert found == expected


def test_a_trial_that_no_machine_can_hold_is_refused() -> None:
    """Ray would wait for such a machine for ever."""
    with pytest.raises(InputError, match="a machine has the GPUs of a trial"):
        plan_resources(Study(gpus_per_trial=2.0), [(4, 1), (4, 1)])


@pytest.mark.parametrize(("epochs", "rungs"), [(24, {3, 9, 24}), (100, {12, 36, 100}), (3, {1, 3})])
def test_evaluation_is_at_the_schedulers_rungs(epochs: int, rungs: set[int]) -> None:
    """What ASHA looks at is what is evaluated, plus the last epoch."""
    evaluated = is_evaluated(SPEC, epochs)
    assert {e for e in range(1, epochs + 1) if evaluated(e)} == rungs
    scheduler = SearchAsha(
        time_attr="epoch", metric="objective", mode="max", max_t=epochs,
        grace_period=grace_epochs(epochs), reduction_factor=3,
    )  # fmt: skip
    assert {int(milestone) for milestone, _ in scheduler._brackets[0]._rungs} <= rungs


def test_early_stopping_remembers_earlier_drivers(ledger: Ledger) -> None:
    """A resumed study judges a trial against those that ran before the restart."""
    queue = RunQueue(SPEC, Sampler(SPEC, lambda run: run.metrics.get("top1")))
    _run(ledger, queue.propose(ledger.state), {3: 80.0, 9: 85.0, 24: 90.0})
    scheduler = make_scheduler(SPEC, Ledger.open(ledger.folder).state, "top1")
    trial = _trial("search")
    scheduler.on_trial_add(None, trial)
    decide = scheduler.on_trial_result
    assert decide(None, trial, {"epoch": 3, "objective": 50.0}) == TrialScheduler.STOP
    other = _trial("search", "y")
    scheduler.on_trial_add(None, other)
    assert decide(None, other, {"epoch": 3, "objective": 95.0}) == TrialScheduler.CONTINUE


def test_early_stopping_by_a_distance_stops_the_far_ones(ledger: Ledger) -> None:
    """With holdout_kl a trial above the others' at its rung is stopped, one below goes on."""
    spec = SPEC.model_copy(update={"study": Study(num_trials=3, metric="holdout_kl")})
    sampler = Sampler(spec, lambda run: objective(run.metrics, "holdout_kl"))
    event = RunQueue(spec, sampler).propose(ledger.state)
    _run(ledger, event, {3: 0.5, 9: 0.4, 24: 0.3}, metric="holdout_kl")
    scheduler = make_scheduler(spec, ledger.state, "holdout_kl")
    expected = {"far": (0.9, TrialScheduler.STOP), "near": (0.1, TrialScheduler.CONTINUE)}
    for name, (value, decision) in expected.items():
        trial = _trial("search", name)
        scheduler.on_trial_add(None, trial)
        result = {"epoch": 3, "objective": objective({"holdout_kl": value}, "holdout_kl")}
        assert scheduler.on_trial_result(None, trial, result) == decision


def test_a_target_in_points_needs_a_metric_in_points() -> None:
    """A loss of one point means nothing where a distance chooses: refused before any work."""
    settings = ["study.metric=holdout_kl", "study.target_loss=1.0"]
    with pytest.raises(InputError, match="a target goes with metric top1 or agreement"):
        resolve_metric(load_space("digits_w3a3", settings))


@pytest.mark.parametrize("kind", ["confirm", "ladder"])
def test_repeats_and_rungs_of_the_ladder_are_never_stopped(ledger: Ledger, kind: str) -> None:
    """They run to their end and do not move a cut-off."""
    scheduler = make_scheduler(SPEC, ledger.state, "top1")
    trial = _trial(kind)
    scheduler.on_trial_add(None, trial)
    for epoch in (3, 9, 24):
        result = {"epoch": epoch, "objective": 0.0}
        assert scheduler.on_trial_result(None, trial, result) == TrialScheduler.CONTINUE
    scheduler.on_trial_complete(None, trial, {"epoch": 24, "objective": 0.0})


def test_no_scheduler_is_asked_for(ledger: Ledger) -> None:
    """`scheduler: none` stops nothing early."""
    spec: StudySpec = load_space("digits_w3a3", ["study.scheduler=none"])
    assert isinstance(make_scheduler(spec, ledger.state, "top1"), FIFOScheduler)


def test_the_order_of_runs(ledger: Ledger) -> None:
    """Search, then the paper's defaults, a wait for the last trial, then the best one again."""
    queue = RunQueue(SPEC, Sampler(SPEC, lambda run: run.metrics.get("top1")))
    for top1 in (70.0, 90.0):
        _run(ledger, queue.propose(ledger.state), {24: top1})
    last = queue.propose(ledger.state)
    ledger.append("proposed", **last)
    ladder = queue.propose(ledger.state)
    assert ladder["key"] == "ladder-paper"
    _run(ledger, ladder, {24: 60.0})
    assert queue.propose(ledger.state) == WAIT
    assert not queue.is_done(ledger.state)
    ledger.append("started", key=last["key"])
    ledger.append("finished", key=last["key"], state="diverged", epochs_run=0, metrics={})
    repeat = queue.propose(ledger.state)
    assert repeat["key"] == "confirm-0001-1"
    assert repeat["params"] == ledger.state.runs["trial-0001"].params
    assert repeat["seed"] != ledger.state.runs["trial-0001"].seed
    _run(ledger, repeat, {24: 89.0})
    assert queue.propose(ledger.state) is None
    assert queue.is_done(ledger.state)


def test_a_round_ends_after_its_trials(ledger: Ledger) -> None:
    """The searcher of one run of Tune stops at its limit; the next one's first trial follows on."""
    queue = RunQueue(SPEC, Sampler(SPEC, lambda run: run.metrics.get("top1")))
    keys = []
    for _ in range(2):
        searcher = LedgerSearcher(ledger, queue, lambda: False, 2)
        while (suggested := searcher.suggest(f"tune-{len(keys)}")) not in (None, "FINISHED"):
            keys.append(suggested["run"]["key"])
            ledger.append("started", key=keys[-1])
            ledger.append(
                "finished", key=keys[-1], state="failed", epochs_run=0, metrics={}, seconds=1.0
            )
        assert suggested == Searcher.FINISHED
        assert searcher.is_full
    assert keys == ["trial-0000", "trial-0001", "trial-0002", "ladder-paper"]
