"""Which trial takes a worker that became free."""

from __future__ import annotations

from typing import Any

from ray.tune.schedulers import FIFOScheduler


class FirstCome(FIFOScheduler):
    """Trials in the order they were suggested, each with the worker that was asked for or found for it.

    Tune's own FIFO gives a free worker to the oldest trial that waits, even to one whose own worker is
    about to start. That worker is then given up and the next trial asks for another: once it happens, it
    happens with every trial, and Tune keeps each request to the end of the round. It also looks through
    all trials at each step, for paused ones too, of which there are none here.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """No preference: Tune then gives free workers to those that have none, in their order."""
