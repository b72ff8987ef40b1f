"""When `summary.json` is rewritten: at each transition, as long as that costs next to nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from synq_tune.study.state import StudyState
from synq_tune.study.summary import write_summary

_SHARE = 1 / 20
"""Of the driver's time, at most, for rewriting at transitions."""


class SummaryWriter:
    """Writes a study's summary; of many transitions in quick succession not after each.

    The file holds every trial, so that each writing takes longer than the one before. Trials that
    take minutes are shown at once even when there are thousands of them.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Write at the first transition.

        Args:
            folder: the study's.
            clock: seconds.
        """
        self.folder, self._clock = folder, clock
        self._next = clock()

    def transition(self, state: StudyState) -> None:
        """A run changed: write, unless the last writing was only a moment ago."""
        if self._clock() >= self._next:
            self.write(state)

    def write(self, state: StudyState) -> None:
        """Write now: a stage is reached, or nothing comes after this."""
        started = self._clock()
        write_summary(state, self.folder)
        ended = self._clock()
        self._next = ended + (ended - started) * (1 / _SHARE - 1)
