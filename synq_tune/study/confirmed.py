"""What the repeats of the finalists said, as lines."""

from __future__ import annotations

from typing import Any

from synq_tune.study.state import StudyState
from synq_tune.study.summary import finalist, repeated, resolve_metric


def confirm_lines(state: StudyState) -> list[str]:
    """A line for each repeated configuration: `trial 0: top1 95.00, 2 of 3 seeds diverged`."""
    metric = resolve_metric(state)
    groups = sorted(repeated(state), key=lambda group: group.rank(metric), reverse=True)
    return [_line(finalist(group, metric), metric) for group in groups]


def _line(found: dict[str, Any], metric: str) -> str:
    seeds, states = found["seeds"], dict(found["states"])
    completed = states.pop("completed")
    others = ", ".join(f"{count} of {seeds} seeds {state}" for state, count in states.items())
    of = f" on average of {completed} seeds" if completed > 1 else ""
    return f"trial {found['number']}: {metric} {found['mean']:.2f}{of}" + (
        f"; {others}" if others else ""
    )
