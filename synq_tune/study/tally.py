"""Which runs are over, kept up to date run by run: a driver with ten thousand of them does not look
at each again at every step."""

from __future__ import annotations

import itertools
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synq_tune.study.state import Run


@dataclass
class Tally:
    """What follows from a study's runs and changes only as one is proposed or ends.

    New runs are found by their place behind those known; `end` has to be called for each that
    ends. A run that is over never changes again.
    """

    unfinished: dict[str, Run] = field(default_factory=dict)
    """By key, in order of proposal."""
    over: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(kind, state) → how many runs ended so."""
    seconds: defaultdict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    """(kind, state) → seconds of those runs together."""
    _ended: list[Run] = field(default_factory=list)
    _num_known: int = 0
    _rankings: dict[str, Ranking] = field(default_factory=dict)

    def read(self, runs: Mapping[str, Run]) -> Tally:
        """Learn of the runs that are new; returns itself."""
        if len(runs) != self._num_known:
            for run in itertools.islice(runs.values(), self._num_known, None):
                self.unfinished[run.key] = run
                if run.is_final:
                    self.end(run)
            self._num_known = len(runs)
        return self

    def end(self, run: Run) -> None:
        """A run that was read before is over."""
        if self.unfinished.pop(run.key, None) is None:
            return  # not read yet: `read` will find it
        self._ended.append(run)
        self.over[run.kind, run.state] += 1
        self.seconds[run.kind, run.state] += run.seconds

    def num_over(self, kind: str | None = None, state: str | None = None) -> int:
        """How many runs are over: of a kind, in a state, or all."""
        return sum(self.over[key] for key in self._keys(kind, state))

    def mean_seconds(self, kind: str | None = None, state: str | None = None) -> float | None:
        """Mean duration of such runs; None without one."""
        number = self.num_over(kind, state)
        return sum(self.seconds[k] for k in self._keys(kind, state)) / number if number else None

    def _keys(self, kind: str | None, state: str | None) -> list[tuple[str, str]]:
        return [(k, s) for k, s in self.over if kind in (None, k) and state in (None, s)]

    def ranked(self, name: str, score: Callable[[Run], Any]) -> Iterator[Run]:
        """The runs that are over, the highest score first.

        Args:
            name: of the score, under which the order is remembered.
            score: of a run, no two alike; None leaves it out.
        """
        ranking = self._rankings.setdefault(name, Ranking())
        return ranking.read(self._ended, score)


@dataclass
class Ranking:
    """Runs by their score, each looked at once."""

    _scored: list[tuple[Any, Run]] = field(default_factory=list)
    _num_read: int = 0

    def read(self, ended: list[Run], score: Callable[[Run], Any]) -> Iterator[Run]:
        """The runs of a list that only grows, the highest score first."""
        for run in itertools.islice(ended, self._num_read, None):
            if (value := score(run)) is not None:
                insort(self._scored, (value, run), key=itemgetter(0))
        self._num_read = len(ended)
        return (run for _, run in reversed(self._scored))
