"""What a study says while it runs: one line per transition, readable in a log file too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from synq_tune.config.metrics import COSTS, METRICS
from synq_tune.notes import counted
from synq_tune.study.confirmed import confirm_lines
from synq_tune.study.exported import file_lines
from synq_tune.study.front_table import front_lines
from synq_tune.study.measured_on import measured_on
from synq_tune.study.progress import hardly_needed_line, target_line
from synq_tune.study.stages import Rung
from synq_tune.study.state import Run, StudyState
from synq_tune.study.why import why_line
from synq_tune.text_table import aligned


def _params(params: dict[str, Any]) -> str:
    shown = ((k, f"{v:g}" if isinstance(v, float) else v) for k, v in params.items())
    return " ".join(f"{key}={value}" for key, value in shown)


def _metrics(run: Run) -> str:
    values = ((name, run.metrics[name]) for name in METRICS if name in run.metrics)
    costs = ((m, run.metrics[name]) for name, m in COSTS.items() if name in run.metrics)
    return "  ".join(
        [
            *(f"{name} {value:.2f}" for name, value in values),
            *(f"{value:{m.text_format}} {m.heading}" for m, value in costs),
        ]
    )


def run_line(state: StudyState, key: str) -> str | None:
    """A line for a run that just started or ended; None in between."""
    run = state.runs[key]
    if run.is_final:
        done = state.tally.num_over(run.kind)
        total = state.num_trials if run.kind == "search" else None
        count = f"[{done}/{total}]" if total else f"[{run.kind}]"
        error = f"  {run.error}" if run.error else ""
        return (
            f"{count} {run.key}  {run.state:<9}  {_metrics(run)}  {counted(run.epochs_run, 'epoch')}  "
            f"{run.seconds:.1f} s  {_params(run.params)}{error}"
        )
    # A state kept between the parts of a reconstruction is no news.
    if not run.history and not run.kept_position:
        return f"      {run.key}  started    {_params(run.params)}"
    return None


def ladder_lines(rungs: Sequence[Rung]) -> list[str]:
    """The ladder as a table; accuracies in percent."""
    heads = ("", "top1", "95 % interval", "agreement")
    first, *lines = aligned(
        [heads, *map(_rung, rungs)], right=(1, 3), at_least=(33, 6, 15, len("agreement"))
    )
    return [f"{first}   ({measured_on(rungs[0])})", *lines]


def _rung(rung: Rung) -> tuple[str, str, str, str]:
    agreement = "" if rung.agreement is None else f"{rung.agreement:.2f}"
    if rung.diverged is not None:
        agreement = "diverged"
    if rung.top1 is None:
        return rung.name, "-", "-", agreement
    return rung.name, f"{rung.top1:.2f}", f"{rung.low:.2f} - {rung.high:.2f}", agreement


def no_trial_line(state: StudyState) -> str:
    """Why a study has no best trial: how its trials ended, and what the last of them said."""
    runs = state.of_kind("search")
    counts = Counter(run.state for run in runs)
    said = [f" {run.key}: {run.error}" for run in runs if run.error]
    ends = ", ".join(f"{count} {name}" for name, count in counts.items()) or "none was started"
    return f"no trial completed ({ends}).{said[-1] if said else ''}"


def _front(state: StudyState) -> list[str]:
    lines = front_lines(state)
    return [*lines, ""] if lines else []


def study_lines(state: StudyState) -> list[str]:
    """What a finished study ends with: ladder, best files."""
    best = state.stages.best
    notes = [line for line in (target_line(state), hardly_needed_line(state)) if line]
    return [
        "",
        *ladder_lines(state.stages.ladder.rungs),
        "",
        *_front(state),
        f"best      {best.key}: " + ", ".join(f"{k}={v}" for k, v in best.params.items()),
        *(f"confirm   {line}" for line in confirm_lines(state)),
        f"why       {why_line(state)}",
        *(f"note      {line}" for line in notes),
        *(f"file      {line}" for line in file_lines(state)),
        f"exported  {best.export_dir}/model.onnx",
    ]
