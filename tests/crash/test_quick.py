"""The short cut of the fault tests: one study, a torn line, a killed worker, a damaged checkpoint."""

from __future__ import annotations

import os
import signal

import pytest

from synq_tune.study.files import state_files
from tests.crash.conftest import FaultTable
from tests.crash.study import TinyStudy, workers_of

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


@pytest.mark.long
def test_nothing_is_lost_or_doubled(small: TinyStudy, table: FaultTable) -> None:
    """The driver dies within its second evaluation's line, a worker after the next one."""
    assert small.start(crash="torn:2:evaluated").wait() == -signal.SIGKILL
    assert state_files(small.folder)
    driver = small.start()
    driver.until_event("evaluated", 2)
    for worker in workers_of(driver):
        os.kill(worker, signal.SIGKILL)
    second = small.start()
    assert second.wait() == 2 and len(second.said().strip().splitlines()) == 1
    assert driver.wait() == 0, driver.errors()
    table.check("SIGKILL of driver and worker, a second driver", small, times=3)
