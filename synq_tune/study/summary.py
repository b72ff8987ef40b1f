"""What a study has found so far: the choice of the best run, and `summary.json`."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from synq_tune import store
from synq_tune.config import FORMAT, Bits
from synq_tune.config.metrics import auto_metric, mode_of, objective, settled
from synq_tune.redact import redact_uri
from synq_tune.study.front import knee, non_dominated
from synq_tune.study.stages import Stage
from synq_tune.study.state import Run, RunState, StudyState

SUMMARY_NAME = "summary.json"


def resolve_metric(state: StudyState) -> str:
    """The name of what chooses: what the driver recorded, else what the spec asks for."""
    if state.stages.metric is not None:
        return state.stages.metric.metric
    study = state.spec.study
    return auto_metric(study.metric, has_labels=study.val_data is not None)


def objectives(state: StudyState) -> tuple[str, ...]:
    """Names of all that the study looks for, first what chooses; one where it has no front."""
    return resolve_metric(state), *state.spec.study.objectives[1:]


def score(run: Run, metric: str) -> tuple[float, float, float]:
    """What runs are sorted by, the largest being the best; a metric not measured is the worst.

    Equal counts of right images go to the lower `holdout_kl`; whatever is still equal to the
    earlier trial.
    """
    return mean_score([run], metric)


def mean_score(runs: list[Run], metric: str) -> tuple[float, float, float]:
    """Score of the mean of several runs of one configuration, in whatever order."""
    values = [objective(run.metrics, metric) for run in runs]
    if None in values:
        return -math.inf, -math.inf, -float(runs[0].number or 0)
    divergences = [run.metrics.get("holdout_kl", math.inf) for run in runs]
    mean = settled(math.fsum(values) / len(runs), metric)
    return mean, -math.fsum(divergences) / len(runs), -float(runs[0].number or 0)


def finalists(state: StudyState, top: int) -> list[Run]:
    """The best `top` completed search runs, the best first.

    With several objectives those of the front, however many, the best in the first of them first.
    """
    if state.spec.study.has_front:
        return [point.run for point in points_of_runs(state, objectives(state))]
    return list(itertools.islice(_ranked(state), top))


def _ranked(state: StudyState) -> Iterator[Run]:
    """All completed search runs, the best first."""
    metric = resolve_metric(state)

    def rank(run: Run) -> tuple[float, ...] | None:
        is_one = run.kind == "search" and _is_candidate(run, metric)
        return score(run, metric) if is_one else None

    return state.tally.ranked(metric, rank)


def _is_candidate(run: Run, metric: str) -> bool:
    return run.state == "completed" and objective(run.metrics, metric) is not None


def confirmations(state: StudyState) -> dict[int, list[Run]]:
    """Confirm runs by the number of the search trial they repeat."""
    repeats: dict[int, list[Run]] = defaultdict(list)
    for run in state.of_kind("confirm"):
        assert run.number is not None
        repeats[run.number].append(run)
    return dict(repeats)


@dataclass(frozen=True)
class Repeated:
    """A configuration and all its runs, each with another seed."""

    run: Run
    """The search trial, which completed."""
    runs: list[Run]
    """It and its repeats."""
    completed: list[Run]
    """Those with a value: the trial itself, and the repeats that measured the metric."""

    @property
    def num_failures(self) -> int:
        """Seeds under which it gave no value: diverged, failed, or not measured."""
        return sum(run.is_final for run in self.runs) - len(self.completed)

    @property
    def is_over(self) -> bool:
        """Whether no repeat is still to be run."""
        return all(run.is_final for run in self.runs)

    def rank(self, metric: str) -> tuple[float, ...]:
        """The largest is the best: first whoever failed least often, then the mean of its
        values."""
        return -self.num_failures, *mean_score(self.completed, metric)


def repeated(state: StudyState) -> list[Repeated]:
    """Every completed search trial that has repeats, in order of number."""
    metric, repeats = resolve_metric(state), confirmations(state)
    found = []
    for number, runs in sorted(repeats.items()):
        originals = [run for run in state.of_kind("search") if run.number == number]
        group = [*originals, *runs]
        completed = [run for run in group if _is_candidate(run, metric)]
        if originals and originals[0] in completed:
            found.append(Repeated(originals[0], group, completed))
    return found


@dataclass(frozen=True)
class Point:
    """One trial of a front."""

    run: Run
    """The search trial."""
    values: dict[str, float]
    """Each objective; of a repeated trial the mean over its seeds."""
    seeds: int = 1
    """Runs that the values are the mean of."""


def points_of_runs(state: StudyState, names: tuple[str, ...]) -> list[Point]:
    """The front of the completed search runs, each by its one seed; see `front`.

    Args:
        state: of the study.
        names: metrics, the first of which orders the points.
    """
    runs = [run for run in state.of_kind("search") if run.state == "completed"]
    measured = [run for run in runs if all(name in run.metrics for name in names)]
    return _front([Point(run, {n: run.metrics[n] for n in names}) for run in measured], names)


def _front(points: list[Point], names: tuple[str, ...]) -> list[Point]:
    kept = [points[n] for n in non_dominated([_to_maximise(p, names) for p in points])]
    return sorted(kept, key=lambda point: _to_maximise(point, names), reverse=True)


def _to_maximise(point: Point, names: tuple[str, ...]) -> tuple[float, ...]:
    values = ((settled(objective(point.values, name) or 0.0, name)) for name in names)
    return tuple(values)


def front(state: StudyState) -> list[Point]:
    """Trials that no other beats in every objective, from the best in the first of them on.

    Once all points that the search found are repeated with other seeds, those that failed under the
    fewest of them count, by their means. Empty while no trial completed, and where the study has
    one objective.
    """
    names = objectives(state)
    if len(names) < 2:
        return []
    found, groups = points_of_runs(state, names), judged(state)
    tested = {group.run.key for group in groups}
    if not groups or any(point.run.key not in tested for point in found):
        return found
    fewest = min(group.num_failures for group in groups)
    sound = [group for group in groups if group.num_failures == fewest]
    return _front([mean_point(group, names) for group in sound], names)


def mean_point(group: Repeated, names: tuple[str, ...]) -> Point:
    """A repeated trial with the means of its runs that measured all of these metrics."""
    runs = [run for run in group.completed if all(name in run.metrics for name in names)]
    means = {n: math.fsum(run.metrics[n] for run in runs) / len(runs) for n in names}
    return Point(group.run, means, len(runs))


def knee_of(state: StudyState, points: list[Point]) -> Point | None:
    """The point of a front to hand over, see `study.front.knee`; None of no points."""
    names = objectives(state)
    return points[knee([_to_maximise(p, names) for p in points])] if points else None


def best_bits(state: StudyState) -> Bits:
    """The widths of the best; the space's own while there is none."""
    run = best_run(state)
    return state.spec.bits if run is None else state.spec.of_trial(run.params).bits


def best_run(state: StudyState) -> Run | None:
    """The search run to export; None while none has completed.

    With several objectives the knee of the front. With one:

    Among the finalists whose confirm runs are all over, the one with the fewest failed seeds, and
    of those the best mean: a configuration that diverges under one seed in three is not as good as
    its lucky runs. Before there are any, the best completed run. Where the chosen one does not meet
    the target, a later run that does is the best without repeats: the search ends with it.
    """
    if state.spec.study.has_front:
        chosen = knee_of(state, front(state))
        return chosen.run if chosen else None
    metric = resolve_metric(state)
    tested_groups = judged(state)
    if not tested_groups:
        return next(_ranked(state), None)
    chosen = max(tested_groups, key=lambda group: group.rank(metric)).run
    if meets_target(state, chosen):
        return chosen
    tested = {group.run.key for group in tested_groups}
    later = (run for run in _ranked(state) if run.key not in tested and meets_target(state, run))
    return next(later, chosen)


def judged(state: StudyState) -> list[Repeated]:
    """The configurations of which all repeats that were asked for are over."""
    if not state.tally.num_over("confirm"):
        return []
    confirm = state.spec.study.confirm
    asked = max(2, confirm.seeds if confirm else 2)
    return [group for group in repeated(state) if len(group.runs) >= asked and group.is_over]


def loss_of(state: StudyState, run: Run) -> float | None:
    """Full precision minus the run, in points of the study's metric, on the same images.

    None where one of the two was not measured.
    """
    teacher = state.stages.teacher
    reference = teacher.reference if teacher else None
    value = objective(run.metrics, resolve_metric(state))
    return None if reference is None or value is None else reference - value


def meets_target(state: StudyState, run: Run | None) -> bool:
    """Whether a completed run loses at most `study.target_loss` points; False without a target."""
    target = state.spec.study.target_loss
    loss = loss_of(state, run) if run is not None else None
    return target is not None and loss is not None and loss <= target


def summarize(state: StudyState, study_dir: Path) -> dict[str, Any]:
    """The whole of `summary.json`.

    Args:
        state: of the study.
        study_dir: its folder.
    """
    return _without_trials(state, study_dir) | {"trials": [_trial(run) for run in _in_order(state)]}


def _in_order(state: StudyState) -> list[Run]:
    return sorted(state.of_kind("search"), key=lambda run: run.number or 0)


def _without_trials(state: StudyState, study_dir: Path) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "study": study_dir.resolve().name,
        "space": state.spec.name,
        "metric": resolve_metric(state),
        "mode": mode_of(resolve_metric(state)),
        "seed": state.spec.study.seed,
        "teacher": _teacher(state),
        "dataset": _picked(state.stages.dataset, ("path", "sha256", "num_images", "method")),
        "trials": [],
        "counts": counts(state),
        "finalists": [finalist(group, resolve_metric(state)) for group in repeated(state)],
        "confirm": [_confirm(run) for run in state.of_kind("confirm")],
        "ladder": ladder(state),
        "best": best(state),
        **({"front": front_rows(state)} if state.spec.study.has_front else {}),
        "tracking_uri": tracking_uri(state),
    }


def front_rows(state: StudyState) -> list[dict[str, Any]]:
    """The front's points as JSON: {number, values, seeds, is_knee, params}."""
    points = front(state)
    chosen = knee_of(state, points)
    return [
        {
            "number": point.run.number,
            "values": point.values,
            "seeds": point.seeds,
            "is_knee": point is chosen,
            "params": point.run.params,
        }
        for point in points
    ]


def write_summary(state: StudyState, folder: Path) -> None:
    """Rewrite `summary.json` in the study's folder, atomically; a line per trial."""
    rest = json.dumps(_without_trials(state, folder), indent=1, allow_nan=False)
    # A name with this text in it has its quotes escaped.
    before, after = rest.split('"trials": []')
    trials = ",\n  ".join(_encoded(run) for run in _in_order(state))
    text = f'{before}"trials": [\n  {trials}\n ]{after}\n'
    store.write_bytes(folder / SUMMARY_NAME, text.encode())


def _encoded(run: Run) -> str:
    if run.encoded is not None:
        return run.encoded
    text = json.dumps(_trial(run), allow_nan=False)
    if run.is_final:
        run.encoded = text
    return text


def counts(state: StudyState) -> dict[str, int]:
    """Number of search trials in each state."""
    states = [run.state for run in state.of_kind("search")]
    return {name: states.count(name) for name in get_args(RunState)}


def ladder(state: StudyState) -> list[dict[str, Any]]:
    """The rungs of the final table; the fields of `stages.Rung`."""
    return [rung.to_event() for rung in state.stages.ladder.rungs] if state.stages.ladder else []


def best(state: StudyState) -> dict[str, Any] | None:
    """The exported run, or the best so far while none of its number is exported."""
    run = best_run(state)
    exported = _picked(state.stages.best, ("number", "params", "metrics", "export_dir"))
    if exported is not None and (run is None or exported["number"] == run.number):
        return exported
    if run is None:
        return None
    return {"number": run.number, "params": run.params, "metrics": run.metrics, "export_dir": None}


def damaged_export(state: StudyState, folder: Path) -> list[Path]:
    """Exported files that are missing, or not the bytes that the ledger knows."""
    files = state.stages.best.files if state.stages.best else {}
    paths = {folder / "best" / name: sha256 for name, sha256 in files.items()}
    return [p for p, sha in paths.items() if not p.is_file() or store.sha256_file(p) != sha]


def tracking_uri(state: StudyState) -> str | None:
    """Where MLflow's copy is, without credentials."""
    tracking = state.stages.tracking
    return redact_uri(tracking.uri) if tracking and tracking.uri else None


def _teacher(state: StudyState) -> dict[str, Any]:
    known = _picked(state.stages.teacher, ("name", "fingerprint", "top1"))
    return known or {"name": state.spec.teacher.model, "fingerprint": None, "top1": None}


def _picked(stage: Stage | None, keys: tuple[str, ...]) -> dict[str, Any] | None:
    """The given fields of a stage; None before it."""
    return None if stage is None else {key: getattr(stage, key) for key in keys}


def _trial(run: Run) -> dict[str, Any]:
    return {
        "number": run.number,
        "state": run.state,
        "params": run.params,
        "metrics": run.metrics,
        "epochs_run": run.epochs_run,
        "started_at": iso_time(run.started_at),
        "finished_at": iso_time(run.finished_at),
        "seconds": run.seconds,
        "error": redact_uri(run.error) if run.error else None,
    }


def _confirm(run: Run) -> dict[str, Any]:
    return {key: getattr(run, key) for key in ("key", "number", "seed", "state", "metrics")}


def finalist(group: Repeated, metric: str) -> dict[str, Any]:
    """How a repeated configuration did: {number, seeds, states, mean}.

    `seeds` is how many runs it has, `states` how many of them are in each state, `mean` the
    metric's over those that completed.
    """
    values = [run.metrics[metric] for run in group.completed]
    states = dict(Counter(run.state for run in group.runs))
    mean = math.fsum(values) / len(values)
    return {"number": group.run.number, "seeds": len(group.runs), "states": states, "mean": mean}


def iso_time(seconds: float | None) -> str | None:
    """ISO 8601 in UTC of seconds since the epoch."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
