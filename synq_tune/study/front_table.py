"""The front of a study with several objectives, as lines."""

from __future__ import annotations

from synq_tune.config.metrics import MEASURED
from synq_tune.study.state import Run, StudyState
from synq_tune.study.summary import Point, front, knee_of, objectives
from synq_tune.text_table import aligned


def front_lines(state: StudyState) -> list[str]:
    """A table of the front's points, the knee marked; none where the study has one objective, or
    nothing completed."""
    points, names = front(state), objectives(state)
    if not points:
        return []
    chosen = knee_of(state, points)
    heads = ["front", *(MEASURED[name].heading for name in names), "seeds", "bits", ""]
    rows = [_row(state, point, names, point is chosen) for point in points]
    return aligned([heads, *rows], right=range(1, len(names) + 2))


def _row(state: StudyState, point: Point, names: tuple[str, ...], is_knee: bool) -> list[str]:
    values = [f"{point.values[name]:{MEASURED[name].text_format}}" for name in names]
    mark = "<- the knee" if is_knee else ""
    widths = widths_of(state, point.run)
    return [f"trial {point.run.number}", *values, str(point.seeds), widths, mark]


def widths_of(state: StudyState, run: Run) -> str:
    """A trial's widths, such as `W3A4 first 8`."""
    bits = state.spec.of_trial(run.params).bits
    more = [
        f" {key} {getattr(bits, key)}" for key in ("first", "last", "skip") if getattr(bits, key)
    ]
    return f"W{bits.weights}A{bits.activations}{''.join(more)}{' mixed' if bits.is_mixed else ''}"
