"""How far a search is: a bar over all its runs on a terminal, a line a minute at most elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import Self

from tqdm import tqdm

from synq_tune.process.progress import is_watched, lines_above_bars, progress_bar
from synq_tune.search.planned import how_far_line, num_done, runs_left, seconds_left
from synq_tune.study.state import StudyState

MINUTE = 60.0
_LAYOUT = "search    {desc} |{bar:20}| {percentage:3.0f} %"  # whole in 80 columns


class RunsBar:
    """Runs done of all, confirm runs and the ladder's among them, and the time left."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._stack = contextlib.ExitStack()
        self._is_watched = is_watched()
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="runs-bar", daemon=True)
        self._known: tuple[int, int, float | None] = (0, 0, None)
        """Runs done, runs left, and when they end by the monotonic clock."""
        self._said = ""
        self._bar: tqdm | None = None

    def __enter__(self) -> Self:
        if self._is_watched:
            self._stack.enter_context(lines_above_bars())
        self._ticker.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._ticker.join()
        self._stack.close()

    def show(self, state: StudyState, concurrent: int) -> None:
        """Take what a transition changed.

        Args:
            state: of the study; only read now, by the thread that changes it.
            concurrent: how many runs there are at once.
        """
        left = seconds_left(state, concurrent, time.time())
        ends = None if left is None else time.monotonic() + left
        self._known = num_done(state), sum(runs_left(state)), ends
        if self._is_watched:
            self._draw(*self._known)

    def _tick(self) -> None:
        """The time left goes down between two transitions, too."""
        while not self._over.wait(1.0 if self._is_watched else MINUTE):
            if self._bar is not None or not self._is_watched:  # `show` makes the bar
                self._draw(*self._known)

    def _draw(self, done: int, left: int, ends: float | None) -> None:
        text = how_far_line(done, left, None if ends is None else max(0.0, ends - time.monotonic()))
        if self._bar is not None:
            self._bar.total, self._bar.n = max(1, done + left), done
            self._bar.set_description_str(text)
        elif self._is_watched and done + left:
            bar = progress_bar(done + left, text, done=done, layout=_LAYOUT)
            self._bar = self._stack.enter_context(bar)
        elif text != self._said and done + left:
            self._said = text
            print(f"search    {text}", file=sys.stderr, flush=True)
