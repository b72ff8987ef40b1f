"""A driver without Ray: the real ledger, proposals, callbacks, early stopping, training states and MLflow.

Its workers compute instead of training: what a run has "learned" is a number that each epoch changes, and
that travels through the training states. So a run that went on from a wrong state, or from none, would
end with other accuracies. A driver of this kind costs tenths of a second, and can be killed hundreds of
times.
"""

from __future__ import annotations

import random
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from synq_tune.config.load import load_space
from synq_tune.finetune.training_state import FORMAT, about, tensor_bytes
from synq_tune.search import tune_adapter as searcher_module
from synq_tune.search.payload import Payload
from synq_tune.search.queue import RunQueue
from synq_tune.search.sampler import Sampler
from synq_tune.search.schedulers import make_scheduler
from synq_tune.search.tune_adapter import LedgerCallback, LedgerSearcher
from synq_tune.store import canonical_json
from synq_tune.study.files import leftovers, prune
from synq_tune.study.ledger import Ledger
from synq_tune.study.lock import study_lock
from synq_tune.study.stages import Metric
from synq_tune.study.summary import write_summary
from synq_tune.tracking.writer import TrackedStudy

TRIALS, EPOCHS, PLACES = 12, 4, 3
SPEC = load_space(
    "digits_w3a3",
    [f"finetune.epochs={EPOCHS}", f"study.num_trials={TRIALS}", f"study.deterministic={PLACES}",
     "study.eval_every=1", "study.confirm={top: 1, seeds: 2}", "study.val_data=null"],
)  # fmt: skip
METRIC = "agreement"
FRONT_SPEC = load_space(
    "digits_w3a3",
    [f"finetune.epochs={EPOCHS}", f"study.num_trials={TRIALS}", f"study.deterministic={PLACES}",
     "study.eval_every=1", "study.confirm={top: 1, seeds: 2}", "study.val_data=null",
     "search.bits.weights={choice: [2, 3, 4, 8]}", "study.objectives=[agreement, size]"],
)  # fmt: skip
"""The same with two objectives."""


class Worker:
    """One run in progress."""

    def __init__(self, run: dict[str, Any]) -> None:
        """Begin, or go on from the bytes of a training state."""
        self.run, self.epoch = run, 0
        self.learned = zlib.crc32(canonical_json([run["params"], run["seed"]]).encode())
        if run["state"] is not None:
            info = about(run["state"])
            self.epoch, self.learned = info["epoch"], info["learned"]

    def step(self) -> dict[str, Any]:
        """One epoch: what TrialWorker.step reports."""
        self.epoch += 1
        self.learned = zlib.crc32(f"{self.learned} {self.epoch}".encode())
        if self.learned % 40 == 0:
            return {"state": "diverged", "error": "kd loss is nan", "seconds": 1.0, "done": True}
        value = self.learned % 10_000 / 100
        result = {
            "epoch": self.epoch, "metrics": {METRIC: value}, "losses": {"total": 100 - value},
            "partial": False, "objective": value, "seconds": float(self.epoch),
        }  # fmt: skip
        info = {"format": FORMAT, "epoch": self.epoch, "learned": self.learned}
        payload = Payload(tensor_bytes({"weights": torch.tensor([value])}, info))
        if self.epoch == EPOCHS:
            result |= {"state": "completed", "done": True}
            if "bits.weights" in self.run["params"]:
                result["metrics"]["size"] = 1000.0 * self.run["params"]["bits.weights"]
        return result | {"payload": payload}


class RaylessDriver:
    """From the header, or wherever the ledger is, to the end of the study."""

    def __init__(self, folder: Path, order: random.Random) -> None:
        """`order` decides which of the runs in progress gets on next."""
        searcher_module.ray.put = lambda data: data
        self.folder, self.order = folder, order
        self.ledger = Ledger.open(folder)
        self.ledger.append("session", action="started", pid=0, host="here")
        self.tracked = TrackedStudy.open(self.ledger, None, folder)
        metric = Metric(METRIC, "max")
        if not self.ledger.state.stages.says(metric):
            self.ledger.record(metric)
        spec = self.ledger.state.spec
        others = spec.study.objectives[1:]
        queue = RunQueue(spec, Sampler(spec, lambda run: run.metrics.get(METRIC), others))
        self.queue, self.searcher = (
            queue,
            LedgerSearcher(self.ledger, queue, lambda: False, 10**6),
        )
        self.callback = LedgerCallback(self.ledger, self._on_transition)
        self.scheduler = make_scheduler(spec, self.ledger.state, METRIC)
        self.workers: dict[str, Worker] = {}

    def _on_transition(self, key: str) -> None:
        if self.ledger.state.runs[key].is_final:
            prune(self.folder, self.ledger.state)
        write_summary(self.ledger.state, self.folder)
        self.tracked.sync(self.ledger.state)

    def run(self) -> None:
        """What StudyDriver.run does around Tune's loop."""
        for path in leftovers(self.folder):
            path.unlink()
        prune(self.folder, self.ledger.state)
        while self.workers or not self.queue.is_done(self.ledger.state):
            self._fill()
            self._step(self.order.choice(sorted(self.workers)))
        self.ledger.append("session", action="finished")
        write_summary(self.ledger.state, self.folder)
        self.tracked.sync(self.ledger.state)
        self.tracked.finish("FINISHED")

    def _fill(self) -> None:
        while len(self.workers) < PLACES:
            name = f"tune-{self.order.random()}"
            suggestion = self.searcher.suggest(name)
            if not isinstance(suggestion, dict):
                return
            self.workers[name] = Worker(suggestion["run"])
            self.callback.on_trial_start(0, [], self._trial(name))

    def _trial(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(trial_id=name, config={"run": self.workers[name].run})

    def _step(self, name: str) -> None:
        result, trial = self.workers[name].step(), self._trial(name)
        decision = self.scheduler.on_trial_result(None, trial, result)
        if decision == "STOP":
            result["done"] = True
        self.callback.on_trial_result(0, [], trial, result)
        if result.get("done"):
            self.searcher.on_trial_complete(name)
            del self.workers[name]


def drive(folder: Path, seed: int) -> None:
    """One driver's work, from lock to end."""
    with study_lock(folder):
        RaylessDriver(folder, random.Random(seed)).run()
