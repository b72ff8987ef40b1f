"""How events become a state."""

from __future__ import annotations

from typing import Any

import pytest

from synq_tune.config.load import load_space
from synq_tune.study.stages import Budget
from synq_tune.study.state import SUMMARIZED, StudyState, apply


@pytest.fixture
def state() -> StudyState:
    return StudyState(load_space("digits_w3a3"), {})


def feed(state: StudyState, event: str, at: float = 0.0, /, **fields: Any) -> None:
    apply(state, {"event": event, "at": at, **fields})


def begin(state: StudyState, key: str = "trial-0000", at: float = 1.0) -> None:
    if key not in state.runs:
        params: dict[str, Any] = {"lr": 0.01}
        feed(state, "proposed", key=key, kind="search", number=0, params=params, seed=5)
    feed(state, "started", at, key=key)


def evaluate(state: StudyState, epoch: int, partial: bool = False, **metrics: float) -> None:
    feed(
        state, "evaluated", key="trial-0000", epoch=epoch, metrics=metrics, losses={},
        **({"partial": True} if partial else {}),
    )  # fmt: skip


def finish(state: StudyState, how: str = "completed", **fields: Any) -> dict[str, float]:
    feed(state, "finished", 9.0, key="trial-0000", state=how, **fields)
    return state.runs["trial-0000"].metrics


def test_start_again_forgets_the_attempt(state: StudyState) -> None:
    """A repeated run shows its last attempt, and when it was first started."""
    begin(state, at=1.0)
    evaluate(state, 3, top1=50.0)
    begin(state, at=2.0)
    run = state.runs["trial-0000"]
    assert (run.history, run.metrics, run.epochs_run, run.started_at) == ([], {}, 0, 1.0)


@pytest.mark.parametrize("event", ["started", "evaluated", "finished", "proposed"])
def test_final_runs_take_no_events(state: StudyState, event: str) -> None:
    """An event for a run that is over is a bug of the driver."""
    begin(state)
    finish(state)
    with pytest.raises(RuntimeError):
        feed(state, event, key="trial-0000", state="failed", epoch=1)


@pytest.mark.parametrize("event", ["started", "evaluated", "finished"])
def test_unknown_runs_take_no_events(state: StudyState, event: str) -> None:
    """Nothing happens to a run that was never proposed."""
    with pytest.raises(RuntimeError, match="unknown run"):
        feed(state, event, key="trial-0009", state="failed", epoch=1)


def test_unknown_events_and_states_are_refused(state: StudyState) -> None:
    """The vocabulary of a ledger is closed."""
    with pytest.raises(RuntimeError, match="teleported"):
        feed(state, "teleported")
    begin(state)
    with pytest.raises(RuntimeError, match="happy"):
        finish(state, "happy")


@pytest.mark.parametrize("action", ["interrupted", "started", "finished"])
def test_sessions_interrupt_what_runs(state: StudyState, action: str) -> None:
    """Between two sessions nothing runs."""
    begin(state)
    feed(state, "session", action=action)
    assert state.runs["trial-0000"].state == "interrupted"
    assert state.sessions[-1]["action"] == action


@pytest.mark.parametrize(("agreement", "time"), [(60.0, 2.0), (61.0, 5.0)])
def test_an_epoch_run_again_keeps_its_time_with_its_numbers(
    state: StudyState, agreement: float, time: float
) -> None:
    """What was logged with that time is then known again; other numbers are later ones."""
    begin(state)
    for at, value in ((2.0, 60.0), (5.0, agreement)):
        fields = {"metrics": {"agreement": value}, "losses": {"total": 1.0}}
        feed(state, "evaluated", at, key="trial-0000", epoch=1, **fields)
        if at == 2.0:
            begin(state, at=4.0)
    run = state.runs["trial-0000"]
    assert run.moments == {1: (time, run.history[0])}


def test_plain_metrics_are_of_the_last_evaluated_epoch(state: StudyState) -> None:
    """Whatever came before is only in the history."""
    begin(state)
    evaluate(state, 3, top1=80.0, agreement=70.0, holdout_kl=0.3)
    evaluate(state, 8, top1=75.0, agreement=72.0, holdout_kl=0.2)
    expected = {
        "top1": 75.0, "agreement": 72.0, "holdout_kl": 0.2, "epoch": 8,
        "top1_best_epoch": 80.0, "agreement_best_epoch": 72.0,
    }  # fmt: skip
    assert finish(state, metrics={"top1": 75.0, "epoch": 8}, epochs_run=8) == expected


def test_running_runs_have_metrics(state: StudyState) -> None:
    """A run shows its progress before it is over."""
    begin(state)
    evaluate(state, 3, agreement=70.0)
    run = state.runs["trial-0000"]
    assert run.metrics == {"agreement": 70.0, "agreement_best_epoch": 70.0, "epoch": 3}
    assert run.epochs_run == 3


def test_best_epoch_compares_equal_image_sets(state: StudyState) -> None:
    """A lucky subset early on is not the best epoch of a run measured on all images."""
    begin(state)
    evaluate(state, 3, partial=True, top1=99.0, agreement=70.0)
    evaluate(state, 24, top1=90.0, agreement=69.0)
    metrics = finish(state)
    assert metrics["top1_best_epoch"] == 90.0
    assert metrics["agreement_best_epoch"] == 70.0
    assert state.runs["trial-0000"].history[0]["partial"] is True


def test_best_epoch_of_a_stopped_run_is_over_its_subset(state: StudyState) -> None:
    """Evaluations on the same subset compare among themselves."""
    begin(state)
    evaluate(state, 3, partial=True, top1=60.0)
    evaluate(state, 8, partial=True, top1=55.0)
    assert finish(state, "stopped")["top1_best_epoch"] == 60.0


def test_finished_event_has_the_last_word(state: StudyState) -> None:
    """A best epoch that the worker reports is kept."""
    begin(state)
    evaluate(state, 3, top1=60.0)
    assert finish(state, metrics={"top1_best_epoch": 61.0})["top1_best_epoch"] == 61.0


def test_metrics_keep_to_the_contract(state: StudyState) -> None:
    """What else was measured stays in the history."""
    begin(state)
    evaluate(state, 1, top1=1.0, entropy=2.0)
    assert set(finish(state, metrics={"speed": 3.0})) <= set(SUMMARIZED)
    assert state.runs["trial-0000"].history[0]["metrics"]["entropy"] == 2.0


def test_metrics_hold_the_one_a_study_asks_for() -> None:
    """Every evaluation measures `holdout_mse`; a run has it where it is what chooses."""
    for metric, has_it in (("auto", False), ("holdout_mse", True)):
        state = StudyState(load_space("digits_w3a3", [f"study.metric={metric}"]), {})
        begin(state)
        evaluate(state, 3, agreement=70.0, holdout_mse=0.5)
        assert ("holdout_mse" in finish(state)) is has_it


def test_diverged_runs_keep_their_last_metrics(state: StudyState) -> None:
    """Where a run was before it diverged is worth knowing."""
    begin(state)
    evaluate(state, 3, top1=60.0)
    metrics = finish(state, "diverged", metrics={}, epochs_run=5, error="total is nan at epoch 6")
    assert metrics["top1"] == 60.0
    assert state.runs["trial-0000"].epochs_run == 5


def test_finished_run_keeps_what_the_worker_reports(state: StudyState) -> None:
    """Seconds, error, checkpoint and the reporting half's accuracy are facts of the run."""
    begin(state)
    finish(state, seconds=3.5, error=None, checkpoint_sha256="ab", report_top1=88.0)
    run = state.runs["trial-0000"]
    assert (run.seconds, run.checkpoint_sha256, run.report_top1, run.finished_at) == (
        3.5, "ab", 88.0, 9.0,
    )  # fmt: skip


def test_budget_replaces_the_number_of_trials(state: StudyState) -> None:
    """A resumed study may be longer than its header says."""
    feed(state, "stage", 4.0, name="budget", data={"num_trials": 99})
    assert state.spec.study.num_trials == 99
    assert state.stages.budget == Budget(num_trials=99)
