"""What the service costs: a study of trials that train nothing, everything around them real."""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from synq_tune.bench.material import Report, bench_teacher
from synq_tune.bench.noop import NoOpWorker
from synq_tune.bench.process_memory import resident_bytes
from synq_tune.config import StudySpec
from synq_tune.config.metrics import mode_of
from synq_tune.notes import counted
from synq_tune.search.cluster import ray_cluster
from synq_tune.search.engine import Work, run_trials
from synq_tune.search.queue import RunQueue
from synq_tune.search.resources import plan_resources
from synq_tune.search.sampler import Sampler, max_trials
from synq_tune.search.schedulers import make_scheduler
from synq_tune.search.tune_adapter import StopRequest
from synq_tune.study.ledger import Ledger
from synq_tune.study.stages import Metric, Teacher
from synq_tune.study.state import StudyState
from synq_tune.study.summary_writer import SummaryWriter
from synq_tune.tracking.writer import TrackedStudy

METRIC = "agreement"
_TENTH = 10


@dataclass
class _Clock:
    """What the driver was seen doing, transition by transition."""

    ended: list[float] = field(default_factory=list)
    """When each run became final, in seconds."""
    resident: list[int] = field(default_factory=list)
    """The driver's memory at those moments, in bytes."""
    summary: list[float] = field(default_factory=list)
    """Seconds for `summary.json` at each transition."""
    tracking: list[float] = field(default_factory=list)
    """Seconds that each report to MLflow takes of the driver; a thread does the writing."""
    last_write: float = 0.0
    """Seconds that the driver waits for that thread at the end."""


def bench_search(spec: StudySpec, rounds: int, device: torch.device) -> Report:
    """Seconds, driver memory and MLflow's share per trial of a study whose trials do nothing.

    Ray, Optuna, the ledger with its fsyncs, `summary.json` and MLflow on SQLite are those of every
    study; only the worker does not train.

    Args:
        spec: its search space and its scheduler; neither synthesis nor labelled images are used.
        rounds: number of trials, ≥ 20.
        device: not used, as nothing is trained; every benchmark has it.

    Raises:
        InputError: the space does not fit its network.
    """
    del device
    study = spec.study.model_copy(
        update={
            "num_trials": max(rounds, 2 * _TENTH),
            "confirm": None,
            "val_data": None,
            "metric": METRIC,
            "target_loss": None,
            "max_hours": None,
        }
    )
    spec = spec.model_copy(update={"study": study})
    with tempfile.TemporaryDirectory(prefix="synq_tune_bench_") as folder:
        clock = _run(spec, Path(folder) / "studies" / "noop")
    return _report(spec, clock)


def _run(spec: StudySpec, folder: Path) -> _Clock:
    """Drive the study in `folder`."""
    clock, ledger = _Clock(), Ledger.create(folder, spec)
    teacher = bench_teacher(spec, torch.device("cpu"))
    ledger.record(Teacher(spec.teacher.model, teacher.fingerprint))
    ledger.record(Metric(METRIC, mode_of(METRIC)))
    tracked = TrackedStudy.open(ledger, None, folder)
    tracked.describe(ledger.state)
    queue = RunQueue(spec, Sampler(spec, lambda run: run.metrics.get(METRIC)))
    stop = StopRequest(threading.Event(), lambda: False)
    context = {"metric": METRIC, "epochs": spec.finetune.epochs}
    listener = _listener(clock, ledger.state, folder, tracked)
    with ray_cluster(None) as machines:
        plan = plan_resources(spec.study, machines)
        work = Work(ledger, queue, stop, context, lambda: plan, listener, NoOpWorker)
        run_trials(work, lambda: make_scheduler(spec, ledger.state, METRIC))
    clock.last_write = _seconds(lambda: tracked.finish("FINISHED"))
    ledger.close()
    return clock


def _listener(
    clock: _Clock, state: StudyState, folder: Path, tracked: TrackedStudy
) -> Callable[[str], None]:
    """What a driver does at each transition, with a watch in hand."""
    summary = SummaryWriter(folder)

    def on_transition(key: str) -> None:
        clock.summary.append(_seconds(lambda: summary.transition(state)))
        clock.tracking.append(_seconds(lambda: tracked.sync(state, key)))
        # The paper's defaults may need a round of Tune of their own, which is no part of a trial.
        if state.runs[key].is_final and state.runs[key].kind == "search":
            clock.ended.append(time.perf_counter())
            clock.resident.append(resident_bytes())

    return on_transition


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _report(spec: StudySpec, clock: _Clock) -> Report:
    """The first tenth of the trials warms up workers and libraries: it is told apart."""
    tenth = max(2, len(clock.ended) // _TENTH)
    numbers: dict[str, object] = {
        "space": spec.name,
        "trials": len(clock.ended),
        "wanted": max_trials(spec),
        "seconds_per_trial": _pace(clock.ended[tenth:]),
        "seconds_per_trial_second_tenth": _pace(clock.ended[tenth : 2 * tenth + 1]),
        "seconds_per_trial_last_tenth": _pace(clock.ended[-tenth - 1 :]),
        "driver_bytes_per_trial": _slope(clock.resident[tenth:]),
        "driver_bytes_per_trial_second_half": _slope(clock.resident[len(clock.resident) // 2 :]),
        "driver_bytes": clock.resident[-1],
        "tracking_seconds_per_report": statistics.median(clock.tracking),
        "tracking_seconds_per_report_last_tenth": statistics.median(clock.tracking[-3 * tenth :]),
        "tracking_seconds_at_the_end": clock.last_write,
        "summary_seconds_last_tenth": statistics.mean(clock.summary[-3 * tenth :]),
    }
    return Report(_lines(numbers), numbers)


def _lines(numbers: dict[str, object]) -> list[str]:
    def in_milliseconds(key: str) -> str:
        return f"{1000 * float(str(numbers[key])):8.1f} ms"

    def in_kilobytes(key: str) -> str:
        return f"{float(str(numbers[key])) / 1000:8.1f} kB"

    rows = {
        "a trial": in_milliseconds("seconds_per_trial"),
        "  second tenth": in_milliseconds("seconds_per_trial_second_tenth"),
        "  last tenth": in_milliseconds("seconds_per_trial_last_tenth"),
        "a report to MLflow": in_milliseconds("tracking_seconds_per_report"),
        "  of the last tenth": in_milliseconds("tracking_seconds_per_report_last_tenth"),
        "  left to write at the end": in_milliseconds("tracking_seconds_at_the_end"),
        "summary.json, last tenth": in_milliseconds("summary_seconds_last_tenth"),
        "driver memory a trial": in_kilobytes("driver_bytes_per_trial"),
        "  of the second half": in_kilobytes("driver_bytes_per_trial_second_half"),
    }
    title = f"Service around {counted(numbers['trials'], 'trial')} of {numbers['space']} that train nothing"
    return [title, "", *(f"{name:26}{value}" for name, value in rows.items())]


def _pace(moments: list[float]) -> float:
    """Mean seconds between consecutive moments."""
    return (moments[-1] - moments[0]) / (len(moments) - 1)


def _slope(values: list[int]) -> float:
    """Least-squares growth per step: single readings jump with the allocator's pages."""
    return statistics.linear_regression(range(len(values)), values).slope
