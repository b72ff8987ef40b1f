"""What a driver takes of a trial, as a function of how many there are: a model to read larger
clusters off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """Milliseconds that grow with the finished trials: `at_0 + slope · n`."""

    at_0: float
    slope: float = 0.0

    def __call__(self, finished: float) -> float:
        """Milliseconds at so many finished trials."""
        return self.at_0 + self.slope * finished

    @classmethod
    def through(cls, few: tuple[float, float], many: tuple[float, float]) -> Line:
        """The line through two points (finished trials, milliseconds); it never falls, since what
        was measured lower with more trials was measured the same."""
        (n0, y0), (n1, y1) = few, many
        slope = max(0.0, (y1 - y0) / (n1 - n0))
        return cls(y0 - slope * n0 if slope else (y0 + y1) / 2, slope)


@dataclass(frozen=True)
class Driver:
    """What one trial costs the driver."""

    own: Mapping[str, Line]
    """Part → CPU milliseconds a trial of the thread that everything waits for."""
    beside: Mapping[str, Line]
    """The same of its other threads: MLflow's writer, Ray's messages. Python lets one thread run at
    a time, so that they count fully."""
    waiting: float = 0.0
    """Milliseconds a trial in which that thread waits for the disk (fsync)."""

    def cpu(self, finished: float) -> float:
        """CPU milliseconds a trial of all threads."""
        return sum(line(finished) for line in (*self.own.values(), *self.beside.values()))

    def busy(self, finished: float) -> float:
        """Milliseconds after which the driver can take the next trial's messages.

        The disk is waited for while other threads compute; the slower of the two counts.
        """
        own = sum(line(finished) for line in self.own.values())
        return max(self.cpu(finished), own + self.waiting)

    def trials_per_hour(self, finished: float) -> float:
        """How many trials an hour the driver keeps up with."""
        return 3.6e6 / self.busy(finished)

    def largest(self, finished: float) -> str:
        """Name of the part that takes most."""
        parts = {**self.own, **self.beside}
        return max(parts, key=lambda name: parts[name](finished))

    def mean_busy(self, trials: int) -> float:
        """Mean milliseconds a trial over a whole study of so many trials."""
        steps = 100
        return sum(self.busy((i + 0.5) * trials / steps) for i in range(steps)) / steps


@dataclass(frozen=True)
class Reading:
    """What a cluster gets of a driver."""

    wanted: float
    """Trials an hour that the places would do if nothing held them up."""
    driver: float
    """Trials an hour that the driver keeps up with at the study's end."""
    filled: float
    """Share of the places, from 0 to 1, that rounds leave filled."""
    megabytes: float
    """10⁶ bytes a second on their way to the driver: states and students."""

    @property
    def bottleneck(self) -> str:
        """What holds a study up first: `rounds`, `driver` or nothing (`places`)."""
        shares = {"places": 1.0, "rounds": self.filled, "driver": self.driver / self.wanted}
        return min(shares, key=lambda name: shares[name])

    @property
    def trials_per_hour(self) -> float:
        """What comes of it."""
        return min(self.wanted * self.filled, self.driver)


def read_off(
    driver: Driver, places: int, trials: int, minutes: float, round_trials: int, messages: float
) -> Reading:
    """What a study on a cluster comes to.

    Args:
        driver: measured.
        places: trials at once.
        trials: of the study.
        minutes: a trial takes.
        round_trials: trials in one run of Tune, at whose end every place waits for the last.
        messages: bytes that a trial sends to the driver.
    """
    wanted = 60 * places / minutes
    filled = filled_share(places, trials, round_trials)
    return Reading(wanted, driver.trials_per_hour(trials), filled, messages * wanted / 3.6e9)


def filled_share(places: int, trials: int, round_trials: int) -> float:
    """Share of the places that are taken, where all trials last as long as each other.

    A round takes as many turns as its trials need; in the last of them the places without a trial
    wait, since the next round begins when this one is over.
    """
    whole, rest = divmod(trials, round_trials)
    turns = whole * -(-round_trials // places) + -(-rest // places)
    return trials / (turns * places)
