"""How many runs a study makes, how many of them are left, and for about how long."""

from __future__ import annotations

import math

from synq_tune.config import StudySpec
from synq_tune.config.cost import Runs, runs_of
from synq_tune.notes import counted
from synq_tune.search.queue import confirmations
from synq_tune.search.sampler import max_trials
from synq_tune.study.state import Run, StudyState


def planned_runs(spec: StudySpec) -> Runs:
    """The runs of a study, if nothing ends it early; no more trials than its space has."""
    return runs_of(spec, max_trials(spec))


def planned_line(state: StudyState) -> str:
    """The same in words; on resume with how many are over."""
    study, done = state.spec.study, num_done(state)
    may_end = study.target_loss is not None or study.max_hours is not None
    may_end |= study.has_front and study.confirm is not None  # how many points is known at the end
    ended = f"; {done} of them are over" if done else ""
    return f"{'at most ' if may_end else ''}{planned_runs(state.spec)}{ended}"


def num_done(state: StudyState) -> int:
    """Runs that are over."""
    return state.tally.num_over()


def runs_left(state: StudyState) -> tuple[int, int]:
    """(search trials, runs after the search) that are not over, if nothing ends the study early."""
    planned = planned_runs(state.spec)
    trials = planned.trials - state.tally.num_over("search")
    defaults = planned.defaults - state.tally.num_over("ladder")
    return max(0, trials), max(0, defaults) + _repeats_left(state, planned, trials)


def _repeats_left(state: StudyState, planned: Runs, trials: int) -> int:
    """A trial that was stopped or failed is repeated by nobody; who is, is known at the end."""
    if trials <= 0:
        events = confirmations(state.spec, state) if planned.repeats else []
        return sum(not _is_over(state, event["key"]) for event in events)
    tally = state.tally
    out = tally.num_over("search") - tally.num_over("search", "completed")
    return planned.repeats * min(planned.finalists, planned.trials - out)


def _is_over(state: StudyState, key: str) -> bool:
    return key in state.runs and state.runs[key].is_final


def seconds_left(state: StudyState, concurrent: int, now: float) -> float | None:
    """About how long the runs that are left take; None before the first of them is over.

    Runs after the search are taken to last as long as those that went to their last epoch: none of
    them is stopped early.

    Args:
        state: of the study.
        concurrent: how many run at once.
        now: seconds since the epoch.
    """
    whole = state.tally.mean_seconds(state="completed")
    trial = state.tally.mean_seconds("search") or whole
    if trial is None:
        return None
    trials, final = runs_left(state)
    work = trials * trial + final * (whole or trial)
    behind = [_behind(run, trial if run.kind == "search" else whole or trial, now)
              for run in state.tally.unfinished.values()]  # fmt: skip
    width = max(1, min(concurrent, trials + final))
    return max(0.0, work - math.fsum(behind)) / width


def _behind(run: Run, expected: float, now: float) -> float:
    """Seconds of a run that are over, of those expected; a clock may jump."""
    started = now if run.started_at is None else run.started_at
    return min(expected, max(0.0, now - started))


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{seconds / 3600:.1f} h"


def how_far_line(done: int, left: int, seconds: float | None) -> str:
    """`7 of 11 runs, about 12 min left`."""
    text = f"{done} of {counted(done + left, 'run')}"
    return text if seconds is None or not left else f"{text}, about {duration(seconds)} left"
