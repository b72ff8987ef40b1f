"""Logical time: what a study knows when it decides, by the numbers of its trials, not by the clock.

With width n, trial k is proposed when trials 0 … k-n are over, and it and its early stopping know
of exactly those, however many others have finished meanwhile. So the sequence of configurations is
a function of the study's seed, whatever finishes first, is killed, or runs beside it on however
many machines. The price is a place that stays empty while trial k-n is the last one to finish.
"""

from __future__ import annotations

from dataclasses import replace

from synq_tune.study.state import Run, StudyState


def known_runs(state: StudyState, number: int, width: int) -> list[Run]:
    """The search runs that trial `number` knows of, over or not."""
    return [run for run in state.of_kind("search") if (run.number or 0) <= number - width]


def may_propose(state: StudyState, number: int, width: int) -> bool:
    """Whether everything that trial `number` has to know is known."""
    return all(run.is_final for run in known_runs(state, number, width))


def as_known(state: StudyState, number: int, width: int) -> StudyState:
    """The state as trial `number` knows it: the trials just before it seem to run still."""
    known = {run.key for run in known_runs(state, number, width)}
    runs = {
        key: run
        if key in known or run.kind != "search"
        else replace(run, state="running", history=[], metrics={}, epochs_run=0)
        for key, run in state.runs.items()
    }
    return replace(state, runs=runs)


def waiting_line(state: StudyState, width: int) -> str | None:
    """What keeping the order has cost: places left empty while proposals were still to come.

    None before a second trial has started.
    """
    runs = [run for run in state.of_kind("search") if run.started_at is not None]
    if len(runs) < 2:
        return None
    begin, end = min(r.started_at for r in runs), max(r.started_at for r in runs)
    ends = ((r.started_at, min(r.finished_at or end, end)) for r in runs)
    busy = sum(max(0.0, last - first) for first, last in ends)
    total = width * (end - begin)
    idle = max(0.0, total - busy)
    share = 100 * idle / total if total else 0.0
    return f"order     waiting left {idle:.0f} of {total:.0f} seconds of {width} places empty ({share:.0f} %)"
