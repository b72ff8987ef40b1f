"""Which trial takes a worker that became free."""

from __future__ import annotations

from typing import Any

from ray.tune.schedulers import FIFOScheduler


class FirstCome(FIFOScheduler):
    """Trials in the order they were suggested, each with the worker that was asked for or found for it.

    Tune's own FIFO gives a free worker to the oldest trial that waits, even to one whose own worker is
    about to start. That one is then taken down and the next trial asks for another: once it happens, each
    trial starts a worker in vain, and Tune keeps 10 kB of each. It also looks through all trials at each
    step, for paused ones too, of which there are none here.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """No preference: Tune then gives free workers to those that have none, in their order."""
