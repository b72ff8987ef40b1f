"""Why the best is the best: what decided against the next one, as a line."""

from __future__ import annotations

from synq_tune.config.metrics import METRICS
from synq_tune.notes import counted
from synq_tune.study.state import Run, StudyState
from synq_tune.study.summary import (
    Repeated,
    best_run,
    finalists,
    front,
    judged,
    objectives,
    resolve_metric,
    score,
)


def why_line(state: StudyState) -> str | None:
    """What put the best before the second; None while there is no best.

    `trial 5 before trial 4: the higher mean of top1 over 2 seeds, 99.33 against 99.22`
    """
    best, metric = best_run(state), resolve_metric(state)
    if best is None:
        return None
    if state.spec.study.has_front:
        return _of_front(state, best)
    groups = sorted(judged(state), key=lambda group: group.rank(metric), reverse=True)
    if not groups:
        return _of_single_runs(state, best, metric)
    if groups[0].run.key != best.key:
        return f"{_name(best)}: it meets the target, which no repeated configuration does"
    if len(groups) == 1:
        return f"{_name(best)}: the only configuration that was repeated"
    return f"{_name(best)} before {_name(groups[1].run)}: {_of_groups(*groups[:2], metric)}"


def _of_front(state: StudyState, best: Run) -> str:
    """Why it is the knee; see `study.front.knee`."""
    points, first = front(state), resolve_metric(state)
    goals = " and ".join(objectives(state))
    if len(points) < 3:
        only = f"the better {first} of the two points" if len(points) == 2 else "the only point"
        return f"{_name(best)}: {only} of the front of {goals}"
    if best is points[0].run:
        return (
            f"{_name(best)}: the best {first} of {len(points)} points of {goals}, of which none lies "
            "beyond the line between the ends"
        )
    return (
        f"{_name(best)}: the knee of {len(points)} points of {goals}, the farthest beyond the line "
        "between the ends"
    )


def _of_single_runs(state: StudyState, best: Run, metric: str) -> str:
    ranked = finalists(state, top=2)
    if len(ranked) == 1:
        return f"{_name(best)}: the only one that completed"
    reason = _difference(score(best, metric), score(ranked[1], metric), metric, "")
    return f"{_name(best)} before {_name(ranked[1])}: {reason}"


def _of_groups(first: Repeated, second: Repeated, metric: str) -> str:
    if first.num_failures != second.num_failures:
        counts = [f"{g.num_failures} of {len(g.runs)}" for g in (first, second)]
        return f"fewer seeds without a value, {counts[0]} against {counts[1]}"
    ranks = [group.rank(metric)[1:] for group in (first, second)]
    return _difference(*ranks, metric, f" over {counted(len(first.completed), 'seed')}")


def _difference(first: tuple[float, ...], second: tuple[float, ...], metric: str, over: str) -> str:
    """What decides between two scores; see `summary.score`."""
    form = METRICS[metric].text_format
    mean = f"mean of {metric}{over}" if over else metric
    values = f"{abs(first[0]):{form}}"
    if first[0] != second[0]:
        side = "lower" if METRICS[metric].is_lower_better else "higher"
        return f"the {side} {mean}, {values} against {abs(second[0]):{form}}"
    if first[1] != second[1]:
        kl = METRICS["holdout_kl"].text_format
        return f"equal {mean}, {values}; the lower holdout_kl, {-first[1]:{kl}} against {-second[1]:{kl}}"
    return f"equal {mean}, {values}; it was proposed first"


def _name(run: Run) -> str:
    return f"trial {run.number}"
