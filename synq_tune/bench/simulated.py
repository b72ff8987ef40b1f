"""A worker that sends what a real one sends and trains nothing; it never imports torch.

So many fit on one machine: a process has Ray Tune in its memory (about 0.1 GB), not torch.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from typing import Any

from synq_tune.search.payload import Payload
from synq_tune.search.reused_worker import ReusedWorker
from synq_tune.store import canonical_json

LOSSES = ("total", "kd", "ce", "cam")


class SimulatedWorker(ReusedWorker):
    """Reports the evaluated epochs of a trial one after another, with losses and a state.

    Metrics, losses of every epoch, and a payload of the size of a training state (at the end: of a
    student) travel to the driver as those of `search.worker.TrialWorker` do.
    """

    def setup(self, config: dict[str, Any], context: dict[str, Any]) -> None:
        """Load nothing.

        Args:
            config: {"run": {key, kind, params, seed}}.
            context: {metric, evaluated, state_bytes, student_bytes}: the epochs that are evaluated,
                in order, and sizes in bytes.
        """
        self.context = context
        self.take(config["run"])

    def take(self, run: dict[str, Any]) -> None:
        """Take a run."""
        self.rows, self.started = messages(run["params"], self.context), time.monotonic()

    def step(self) -> dict[str, Any]:
        """The next evaluated epoch."""
        return {**next(self.rows), "seconds": time.monotonic() - self.started}


def messages(params: dict[str, Any], context: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a trial reports, evaluated epoch by evaluated epoch; see `SimulatedWorker.setup`."""
    value, before = accuracy_of(params), 0
    for epoch in context["evaluated"]:
        losses = dict.fromkeys(LOSSES, 1.0 / epoch)
        is_last = epoch == context["evaluated"][-1]
        size = context["student_bytes" if is_last else "state_bytes"]
        yield {
            "epoch": epoch,
            "metrics": {context["metric"]: value, "holdout_kl": 1.0 - value / 100},
            "losses": losses,
            "earlier": {str(e): losses for e in range(before + 1, epoch)},
            "partial": False,
            "objective": value,
            "payload": Payload(bytes(size)),
            **({"state": "completed", "done": True} if is_last else {}),
        }
        before = epoch


def accuracy_of(params: dict[str, Any]) -> float:
    """A percentage in [0, 100) that only the configuration decides."""
    return zlib.crc32(canonical_json(params).encode()) % 10_000 / 100
