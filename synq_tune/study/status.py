"""A study's state as text for a terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synq_tune.config.metrics import MEASURED, mode_of
from synq_tune.notes import counted
from synq_tune.study import summary
from synq_tune.study.confirmed import confirm_lines
from synq_tune.study.front_table import front_lines
from synq_tune.study.lock import holder
from synq_tune.study.measured_on import measured_on
from synq_tune.study.places import store_of
from synq_tune.study.progress import target_line
from synq_tune.study.stages import Rung, Uploads
from synq_tune.study.state import Run, StudyState
from synq_tune.study.why import why_line
from synq_tune.text_table import aligned

_METRIC_COLUMNS = [(m.name, m.heading, m.text_format) for m in MEASURED.values()]


def format_status(state: StudyState, folder: Path) -> str:
    """Everything a user asks of a study: how far it is, its trials, the best, where the model is.

    Args:
        state: of the study.
        folder: its folder.
    """
    parts = (
        _head(state, folder),
        _trials(state),
        _confirm(state),
        "\n".join(front_lines(state)),
        _best(state),
        _ladder(state),
        _places(state),
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def stage_reached(state: StudyState) -> str:
    """The last thing that is done, in words."""
    ended = bool(state.sessions) and state.sessions[-1].get("action") == "finished"
    stages = state.stages
    reached = (
        (ended and stages.best is not None, "finished"),
        (stages.best is not None, "best model exported"),
        (stages.ladder is not None, "ladder measured"),
        (bool(state.of_kind("confirm")), "confirming the finalists"),
        (bool(state.of_kind("search")), "searching"),
        (stages.dataset is not None, "synthetic dataset ready"),
        (stages.teacher is not None, "teacher loaded"),
    )
    return next((words for is_reached, words in reached if is_reached), "not started")


def _head(state: StudyState, folder: Path) -> str:
    driver = holder(folder)
    driven = str(driver) if driver else "nobody (resume to continue)"
    rows = {
        "study": f"{folder.resolve().name} (space {state.spec.name})",
        "folder": str(folder.resolve()),
        "stage": stage_reached(state),
        "driver": "" if stage_reached(state) == "finished" and not driver else driven,
        "trials": _counts(state),
        "dataset": _dataset(state),
        "store": str(store_of(state) or ""),
        "metric": _metric(state),
        "target": target_line(state) or "",
    }
    return "\n".join(f"{name:<8} {text}" for name, text in rows.items() if text)


def _metric(state: StudyState) -> str:
    return ", then ".join(map(_direction, summary.objectives(state)))


def _direction(name: str) -> str:
    return f"{name} ({'higher' if mode_of(name) == 'max' else 'lower'} is better)"


def _counts(state: StudyState) -> str:
    numbers = {name: count for name, count in summary.counts(state).items() if count}
    total = f"{sum(numbers.values())} of {state.num_trials}"
    shown = ", ".join(f"{count} {name}" for name, count in numbers.items())
    return f"{total}: {shown}" if shown else total


def _dataset(state: StudyState) -> str:
    made = state.stages.dataset
    if made is None:
        return ""
    return f"{counted(made.num_images, 'image')} by {made.method}, {made.sha256[:12]}, {made.path}"


def _trials(state: StudyState) -> str:
    searched = sorted(state.of_kind("search"), key=lambda run: run.number or 0)
    runs = [*searched, *state.of_kind("confirm")]
    if not runs:
        return ""
    columns = [c for c in _METRIC_COLUMNS if any(c[0] in run.metrics for run in runs)]
    header = ["trial", "state", *(title for _, title, _ in columns), "epochs", "seconds", "params"]
    numbers = range(2, len(header) - 1)
    return "\n".join(aligned([header, *(_trial(run, columns) for run in runs)], right=numbers))


def _trial(run: Run, columns: Sequence[tuple[str, str, str]]) -> list[str]:
    metrics = [_number(run.metrics.get(name), form) for name, _, form in columns]
    name = str(run.number) if run.kind == "search" else run.key
    # A confirm run has the configuration of the trial it repeats.
    tail = _params(run.params) if run.kind == "search" else ""
    if run.error:
        tail += f"  [{summary.redact_uri(' '.join(run.error.split()))[:100]}]"
    return [name, run.state, *metrics, str(run.epochs_run), f"{run.seconds:.1f}", tail]


def _confirm(state: StudyState) -> str:
    heads = ["confirm ", *[" " * 8] * len(state.runs)]
    return "\n".join(f"{h} {line}" for h, line in zip(heads, confirm_lines(state), strict=False))


def _best(state: StudyState) -> str:
    best = summary.best(state)
    if best is None:
        return ""
    columns = [c for c in _METRIC_COLUMNS if c[0] in best["metrics"]]
    measured = ", ".join(f"{name} {best['metrics'][name]:{form}}" for name, _, form in columns)
    export = best["export_dir"] or "not exported yet"
    lines = (
        f"best     trial {best['number']}: {measured}",
        f"         {_params(best['params'])}",
        f"why      {why_line(state)}",
    )
    return "\n".join([*lines, f"model    {export}"])


def _ladder(state: StudyState) -> str:
    if state.stages.ladder is None or not state.stages.ladder.rungs:
        return ""
    rungs = state.stages.ladder.rungs
    header = ["ladder", "top1 %", "95 % interval", "agree %"]
    table = aligned([header, *map(_rung, rungs)], right=(1, 2, 3))
    return "\n".join([measured_on(rungs[-1]), *table])


def _rung(rung: Rung) -> list[str]:
    interval = "" if rung.low is None else f"{rung.low:.2f} to {rung.high:.2f}"
    agreement = _number(rung.agreement, ".2f") if rung.diverged is None else "diverged"
    return [rung.name, _number(rung.top1, ".2f"), interval, agreement]


def _places(state: StudyState) -> str:
    uri = summary.tracking_uri(state)
    if not uri:
        return ""
    uploads = state.stages.uploads or Uploads()
    lines = [f"         models:/{uploads.version}"] if uploads.version else []
    lines += [f"         not uploaded: {name}: {error}" for name, error in uploads.refused.items()]
    return "\n".join([f"mlflow   {uri}", *lines])


def _params(params: dict[str, Any]) -> str:
    return " ".join(
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in params.items()
    )


def _number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"
