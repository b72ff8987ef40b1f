"""SIGKILL of the driver: at every transition, and at any time."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.cluster import cluster
from tests.crash.conftest import FaultTable
from tests.crash.study import TinyStudy

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(6 * 3600)]

MOMENTS = [
    f"{where}:1:{event}"
    for event in ("proposed", "started", "evaluated", "finished", "stage")
    for where in ("after", "torn", "before")
]
"""Where a driver is killed: instead of writing a transition, within it, and before it acts on it."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster that stays when a driver dies: starting one costs each resume seconds."""
    with cluster(2) as (address, _):
        yield address


def _studies(tmp_path: Path, address: str) -> Iterator[TinyStudy]:
    for seed in itertools.count():
        folder = tmp_path / "studies" / f"seed-{seed}"
        yield TinyStudy(folder, [f"study.seed={seed}"], ("--ray-address", address))


def test_killed_at_every_transition(
    tmp_path: Path, address: str, table: FaultTable, kills: int
) -> None:
    """Each kind of transition, in turn, until the study has ended; then another study."""
    left = kills // 2
    moments = itertools.cycle(MOMENTS)
    for study in _studies(tmp_path, address):
        times = 0
        while left > times:
            driver = study.start(crash=next(moments))
            code = driver.wait()
            if code != -signal.SIGKILL:
                assert code == 0, driver.errors()  # it ended before its moment came
                break
            times += 1
        study.finish()
        table.check("SIGKILL of the driver at a transition", study, times)
        left -= times
        if not left:
            return


def test_killed_at_any_time(tmp_path: Path, address: str, table: FaultTable, kills: int) -> None:
    """Seconds drawn at random, from the first import to the export."""
    left, draw, longest = kills - kills // 2, random.Random(0), 40.0
    for study in _studies(tmp_path, address):
        times, began, driver = 0, time.time(), study.start()
        while left > times:
            try:
                driver.process.wait(draw.uniform(1.0, longest))
                longest = max(20.0, time.time() - began)
                break
            except subprocess.TimeoutExpired:
                driver.kill()
            times, began, driver = times + 1, time.time(), study.start()
        assert driver.wait() == 0, driver.errors()
        table.check("SIGKILL of the driver at a random time", study, times)
        left -= times
        if not left:
            return
