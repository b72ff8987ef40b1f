"""A driver whose trials train nothing: proposals, ledger, console, files and MLflow are a study's
own."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from synq_tune.bench.cpu_watch import CpuWatch
from synq_tune.bench.material import bench_teacher
from synq_tune.bench.simulated import SimulatedWorker, messages
from synq_tune.config import StudySpec
from synq_tune.config.metrics import mode_of
from synq_tune.finetune.training_state import tensor_bytes
from synq_tune.process.signals import Interrupts
from synq_tune.quantization.student import quantize_student
from synq_tune.search.driver import Options, StudyDriver
from synq_tune.search.engine import Work, run_trials
from synq_tune.search.resources import Machine
from synq_tune.search.sampler import draw_configuration
from synq_tune.search.schedulers import make_scheduler
from synq_tune.search.tune_adapter import LedgerCallback, LedgerSearcher, StopRequest
from synq_tune.store import canonical_json
from synq_tune.study.ledger import LEDGER_NAME, Ledger, encode_record
from synq_tune.study.stages import Metric, Teacher
from synq_tune.tracking.writer import TrackedStudy
from synq_tune.trial.rungs import is_evaluated

METRIC = "agreement"
PARTS = {
    "proposal": "Optuna proposes, a trial",
    "ledger": "ledger, an event",
    "target": "is the study over? a step of Tune",
    "summary": "summary.json, a transition",
    "console": "console and files, a transition",
    "tracking": "MLflow, handed to its thread",
    "mlflow": "MLflow, written by its thread",
    "suggest": "searcher, a trial",
    "callback": "callback, a message",
}
"""Part of the driver → what it is in words."""


class SimulatedDriver(StudyDriver):
    """A study's driver over workers that only send messages, with a watch on each of its parts."""

    def __init__(self, spec: StudySpec, folder: Path, earlier: int = 0) -> None:
        """Begin a study; nothing is synthesized.

        Args:
            spec: its space, its number of trials and how many run at once.
            folder: new; the study's.
            earlier: finished trials that the ledger holds already.
        """
        self.teacher = bench_teacher(spec, torch.device("cpu"))
        with_header(spec, folder, earlier)
        super().__init__(Ledger.open(folder), Options(folder, folder.parent), Interrupts())
        self.ledger.record(Teacher(spec.teacher.model, self.teacher.fingerprint))
        self.ledger.record(Metric(METRIC, mode_of(METRIC)))
        self.tracked = TrackedStudy.open(self.ledger, None, folder)
        self.tracked.describe(self.ledger.state)
        self.queue = self._queue(SimpleNamespace(metric=METRIC))
        self.stop = StopRequest(self.interrupts.requested, self._is_enough)
        self.context = self._messages_of_a_trial()
        self.watch = CpuWatch()
        self._put_watches()

    def _put_watches(self) -> None:
        watch = self.watch.watch
        watch(self.queue, "propose", "proposal")
        watch(self.ledger, "append", "ledger")
        watch(self.stop, "stop_all", "target")
        watch(self.summary, "transition", "summary")
        watch(self.tracked, "sync", "tracking")
        watch(self.tracked.tracker, "sync", "mlflow")
        self._on_transition = self.watch.watched(self._on_transition, "console")

    def _messages_of_a_trial(self) -> dict[str, Any]:
        """What the simulated workers are told."""
        student = quantize_student(self.teacher, self.spec.bits, self.spec.quantizer)
        size = len(tensor_bytes(student.state_dict()))
        # Adam keeps two values beside each weight.
        return {"metric": METRIC, "evaluated": evaluated_epochs(self.spec),
                "state_bytes": 3 * size, "student_bytes": size}  # fmt: skip

    def run_on(self, machines: list[Machine]) -> None:
        """Run the study on Ray, which has been started."""
        plan = partial(self._plan, machines)
        work = Work(
            self.ledger, self.queue, self.stop, self.context, plan, self._on_transition,
            SimulatedWorker,
        )  # fmt: skip
        run_trials(work, lambda: make_scheduler(self.spec, self.ledger.state, METRIC))

    def run_alone(self, trials: int, concurrent: int) -> None:
        """Run trials without Ray: their messages come from this process, one after another.

        Args:
            trials: that end, with a watch on them.
            concurrent: that are under way at each moment; the first ones start without a watch.
        """
        searcher = LedgerSearcher(self.ledger, self.queue, self.stop.stop_all, trials + concurrent)
        callback = LedgerCallback(self.ledger, self._on_transition)
        for name in ("on_trial_start", "on_trial_result"):
            self.watch.watch(callback, name, "callback")
        self.watch.watch(searcher, "suggest", "suggest")
        names = (f"tune-{number}" for number in range(trials + concurrent))
        active = [_start(searcher, callback, next(names)) for _ in range(concurrent)]
        self.tracked.wait()
        self.watch.reset()
        for name in names:
            self._end(active.pop(0), searcher, callback)
            active.append(_start(searcher, callback, name))
        self.tracked.wait()

    def _end(self, trial: Any, searcher: LedgerSearcher, callback: LedgerCallback) -> None:
        self.stop.stop_all()
        for result in messages(trial.config["run"]["params"], self.context):
            self.stop.stop_all()
            callback.on_trial_result(0, [], trial, {**result, "seconds": 60.0})
        searcher.on_trial_complete(trial.trial_id)

    def close(self) -> None:
        """Write what is left."""
        self.tracked.finish("FINISHED")
        self.ledger.close()


def with_header(spec: StudySpec, folder: Path, earlier: int) -> None:
    """Write a ledger with a header and finished trials, at once: each by itself would be a sync."""
    Ledger.create(folder, spec).close()
    with open(folder / LEDGER_NAME, "ab") as file:
        for number, params in enumerate(_configurations(spec, earlier)):
            file.writelines(map(encode_record, _events(spec, number, params)))


def _configurations(spec: StudySpec, count: int) -> Iterator[dict[str, Any]]:
    """Different ones, at random."""
    generator, seen = random.Random(0), set()
    while len(seen) < count:
        params = draw_configuration(spec, generator)
        if (name := canonical_json(params)) not in seen:
            seen.add(name)
            yield params


def _events(spec: StudySpec, number: int, params: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What the ledger holds of a finished trial."""
    about = {"at": time.time(), "key": f"trial-{number:04d}"}
    yield {"event": "proposed", **about, "kind": "search", "number": number, "params": params,
           "seed": number, "label": ""}  # fmt: skip
    yield {"event": "started", **about}
    epochs = spec.finetune.epochs
    told = {"metric": METRIC, "evaluated": evaluated_epochs(spec), "state_bytes": 0,
            "student_bytes": 0}  # fmt: skip
    for row in messages(params, told):
        names = ("epoch", "metrics", "losses", "earlier", "partial")
        yield {"event": "evaluated", **about, **{name: row[name] for name in names}}
        metrics = {**row["metrics"], "epoch": epochs}
    yield {"event": "finished", **about, "state": "completed", "epochs_run": epochs,
           "metrics": metrics, "seconds": 60.0}  # fmt: skip


def evaluated_epochs(spec: StudySpec) -> list[int]:
    """The epochs of a trial that nobody stops, after which a message goes to the driver."""
    epochs = spec.finetune.epochs
    return [epoch for epoch in range(1, epochs + 1) if is_evaluated(spec, epochs)(epoch)]


def _start(searcher: LedgerSearcher, callback: LedgerCallback, name: str) -> Any:
    trial = SimpleNamespace(trial_id=name, config=searcher.suggest(name))
    callback.on_trial_start(0, [], trial)
    return trial
