"""Time functions against each other on a machine that is never quiet."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timings:
    """Seconds of each function in each round."""

    rounds: dict[str, list[float]]
    """Name → seconds, one per round, in the same order for all."""

    def median(self, name: str) -> float:
        """Median seconds of a function."""
        return statistics.median(self.rounds[name])

    def ratio(self, name: str, over: str) -> float:
        """Median over rounds of one function's seconds over another's in the same round.

        Not the ratio of medians: what else the machine does slows both of a round alike.
        """
        pairs = zip(self.rounds[name], self.rounds[over], strict=True)
        return statistics.median(a / b for a, b in pairs)


def interleave(
    functions: Mapping[str, Callable[[], object]], rounds: int, device: torch.device
) -> Timings:
    """Run the functions in turn, `rounds` times; once before without a clock.

    Args:
        functions: each does the same work at every call.
        rounds: ≥ 1.
        device: waited for before and after each call.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(rounds):
        for name, function in functions.items():
            seconds[name].append(seconds_of(function, device))
    return Timings(seconds)


def seconds_of(function: Callable[[], object], device: torch.device) -> float:
    """Wall-clock seconds of one call, the device's work included."""
    _wait(device)
    started = time.perf_counter()
    function()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
