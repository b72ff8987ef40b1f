"""How many points a study's best loses against full precision, and whether that is little
enough."""

from __future__ import annotations

from synq_tune.study.ledger import Ledger
from synq_tune.study.rungs import BEST, CALIBRATED
from synq_tune.study.state import Run, StudyState
from synq_tune.study.summary import best_run, loss_of, meets_target

HARDLY_NEEDED = 0.5
"""Points by which a search must beat calibration alone to be worth its time."""


def target_met(state: StudyState) -> Run | None:
    """The best completed run if it loses at most `study.target_loss` points, else None."""
    if state.spec.study.target_loss is None:
        return None  # asked at every step
    best = best_run(state)
    return best if meets_target(state, best) else None


def is_calibration(state: StudyState, run: Run) -> bool:
    """Whether the run trained nothing."""
    return not state.spec.of_trial(run.params).is_trained


def target_line(state: StudyState) -> str | None:
    """What became of the target, or None where none was set."""
    target, best = state.spec.study.target_loss, best_run(state)
    loss = loss_of(state, best) if best is not None else None
    if target is None or loss is None:
        return None
    lost = f"{_lost(loss)} (target {target:.2f})"
    if loss > target:
        missed = f"target missed by {loss - target:.2f} points"
        return f"{missed if _has_ended(state) else 'not met yet'}: {best.key} {lost}"
    if is_calibration(state, best):
        return f"no search needed: calibration alone {lost}"
    return f"target met: {best.key} {lost}"


def _lost(points: float) -> str:
    """A quantized network can be right on more images than its teacher."""
    return f"loses {points:.2f} points" if points >= 0 else f"gains {-points:.2f} points"


def _has_ended(state: StudyState) -> bool:
    return bool(state.sessions) and state.sessions[-1]["action"] == "finished"


def hardly_needed_line(state: StudyState) -> str | None:
    """Says so where calibration alone comes within half a point of the best found."""
    ladder, run = state.stages.ladder, best_run(state)
    if ladder is None or run is None or is_calibration(state, run):
        return None
    calibrated, best = ladder.rung(CALIBRATED), ladder.rung(BEST)
    if calibrated is None or best is None:
        return None
    if calibrated.diverged is not None or best.diverged is not None:
        return None
    name = "agreement" if best.top1 is None else "top1"
    gain = getattr(best, name) - getattr(calibrated, name)
    if gain > HARDLY_NEEDED:
        return None
    found = f"comes within {gain:.2f} points of" if gain > 0 else f"is {-gain:.2f} points above"
    may_have_target = state.spec.study.target_loss is None and not state.spec.study.has_front
    return (
        f"calibration alone {found} the best found: at these bits a search is hardly needed"
        f"{' (--target-loss 1 tries calibration first)' if may_have_target else ''}"
    )


def seconds_spent(ledger: Ledger) -> float:
    """Seconds earlier drivers worked on the study, as far as the ledger shows."""
    starts = [s["at"] for s in ledger.state.sessions if s["action"] == "started"]
    times = [s["at"] for s in ledger.state.sessions]
    for run in ledger.state.runs.values():
        times += [t for t in (run.started_at, run.finished_at) if t is not None]
    # The last session that started is this one: it counts by its own clock.
    # A clock that was set back between two sessions leaves no time in between.
    ends = [
        max([t for t in times if a <= t < b], default=a)
        for a, b in zip(starts, starts[1:], strict=False)
    ]
    return sum(end - start for start, end in zip(starts, ends, strict=False))
