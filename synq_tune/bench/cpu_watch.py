"""CPU seconds of the parts of a program, whatever else the machine does meanwhile."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class CpuWatch:
    """CPU and wall seconds spent in functions; a part's own, without those watched inside it.

    Each thread has a stack of its own. Time that a part waits, for a disk or another thread, is in
    its wall seconds alone.
    """

    def __init__(self) -> None:
        """Nothing is watched yet."""
        self.cpu: dict[str, float] = defaultdict(float)
        self.wall: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._inside = threading.local()

    def watched(self, function: Callable[P, R], name: str) -> Callable[P, R]:
        """The function, whose seconds count for `name`."""

        def run(*arguments: P.args, **options: P.kwargs) -> R:
            stack = self._stack()
            stack.append((0.0, 0.0))
            cpu, wall = time.thread_time(), time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self._count(name, time.thread_time() - cpu, time.perf_counter() - wall)

        return run

    def watch(self, owner: Any, method: str, name: str) -> None:
        """Watch one method of one object."""
        setattr(owner, method, self.watched(getattr(owner, method), name))

    def reset(self) -> None:
        """Forget what was counted, as after warming up."""
        for counted in (self.cpu, self.wall, self.calls):
            counted.clear()

    def _stack(self) -> list[tuple[float, float]]:
        """(CPU, wall) seconds of the watched parts inside each part that is running."""
        if not hasattr(self._inside, "stack"):
            self._inside.stack = []
        return self._inside.stack

    def _count(self, name: str, cpu: float, wall: float) -> None:
        stack = self._stack()
        cpu_inside, wall_inside = stack.pop()
        self.cpu[name] += cpu - cpu_inside
        self.wall[name] += wall - wall_inside
        self.calls[name] += 1
        if stack:
            before = stack.pop()
            stack.append((before[0] + cpu, before[1] + wall))
