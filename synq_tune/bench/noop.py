"""A worker that trains nothing: what is left of a trial is what the service itself costs."""

from __future__ import annotations

import time
from typing import Any

from synq_tune.bench.simulated import accuracy_of
from synq_tune.search.worker import TrialWorker


class NoOpWorker(TrialWorker):
    """Reports a finished trial at its first step, with an accuracy made from its configuration."""

    def setup(self, config: dict[str, Any], context: dict[str, Any]) -> None:
        """Load nothing.

        Args:
            config: {"run": {key, kind, params, seed}}.
            context: {metric, epochs}.
        """
        self.context = context
        self.take(config["run"])

    def step(self) -> dict[str, Any]:
        """The only evaluated epoch."""
        value = accuracy_of(self.run_info["params"])
        return {
            "epoch": self.context["epochs"],
            "metrics": {self.context["metric"]: value},
            "losses": {"total": 100.0 - value},
            "partial": False,
            "objective": value,
            "seconds": time.monotonic() - self.started,
            "state": "completed",
            "done": True,
        }
