"""Processes that die: workers, nodes, drivers told to stop, a second driver."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time

import pytest

from synq_tune.study.ledger import Ledger
from synq_tune.study.lock import LOCK_NAME, holder
from synq_tune.tracking.check import mlflow_findings
from tests.crash.cluster import cluster, kill
from tests.crash.conftest import FaultTable
from tests.crash.study import TinyStudy, processes_of, workers_of

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(3600)]

LONG = ["finetune.steps_per_epoch=30"]
"""An epoch lasts seconds, so that a signal arrives in its middle."""

GRACE = 30.0
"""Seconds between SIGTERM and SIGKILL, Kubernetes' and Slurm's default."""


def test_a_worker_is_killed_within_an_epoch(study: TinyStudy, table: FaultTable) -> None:
    """Its run goes on from its last checkpoint in another process; the driver never stops."""
    study.sets += LONG
    driver = study.start()
    for times in (1, 2):
        driver.until_event("evaluated", 2 * times)
        time.sleep(0.5)
        (worker,) = workers_of(driver)
        os.kill(worker, signal.SIGKILL)
    assert driver.wait() == 0, driver.errors()
    assert _gone_on(study)
    table.check("SIGKILL of a worker within an epoch", study, times=2)


def _gone_on(study: TinyStudy) -> list[str]:
    """Keys of runs that went on from a checkpoint."""
    events = map(json.loads, study.lines)
    return [e["key"] for e in events if e["event"] == "started" and "epoch" in e]


def _with_checkpoint(study: TinyStudy) -> set[str]:
    """Keys of unfinished runs that have a checkpoint to go on from."""
    events = [(e["event"], e.get("key")) for e in map(json.loads, study.lines)]
    return {key for event, key in events if event == "evaluated"} - {
        key for event, key in events if event == "finished"
    }


def test_a_node_disappears(study: TinyStudy, table: FaultTable) -> None:
    """Runs of a lost node go on, on another one, from the bytes that the driver has."""
    study.sets += [*LONG, "study.scheduler=none"]
    with cluster(1, 1) as (address, nodes):
        study.arguments = ("--ray-address", address)
        driver = study.start("--max-concurrent", "2")
        driver.until(lambda: len(_with_checkpoint(study)) == 2)  # a run on each node
        kill(nodes[1])
        assert driver.wait() == 0, driver.errors()
    assert _gone_on(study), "no run was on the node that disappeared"
    table.check("SIGKILL of a raylet in a two-node cluster", study)


@pytest.mark.parametrize(("who", "group"), [("Kubernetes", False), ("Slurm", True)])
def test_told_to_stop(small: TinyStudy, table: FaultTable, who: str, group: bool) -> None:
    """SIGTERM to the driver (Kubernetes) or to Ray's processes as well (Slurm), SIGKILL 30 s later.

    The driver alone ends in time, with 130. Without its Ray it may not: then it is killed.
    """
    small.sets += LONG
    driver = small.start()
    driver.until_event("evaluated", 2)
    for pid in [*(processes_of(driver.pid) if group else []), driver.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    try:
        code = driver.wait(GRACE)
    except subprocess.TimeoutExpired:
        code = driver.kill()
    if not group:
        assert code == 130, driver.errors()
    if code == 130:
        assert json.loads(small.lines[-1])["action"] == "interrupted"
        assert mlflow_findings(Ledger.open(small.folder, read_only=True)) == []
    small.finish()
    table.check(f"SIGTERM as {who} sends it", small)


def test_a_second_driver_is_refused(study: TinyStudy, table: FaultTable) -> None:
    """One line, exit code 2, and nothing of the first one's study is touched."""
    driver = study.start()
    driver.until_event("started")
    second = study.start()
    assert second.wait() == 2
    assert len(second.said().strip().splitlines()) == 1
    assert f"process {driver.pid}" in second.said()
    assert driver.wait() == 0, driver.errors()
    table.check("a second driver on the folder", study)


def test_a_stale_lease_is_taken_over(small: TinyStudy, table: FaultTable) -> None:
    """A lock file of a driver that died holds nobody up, whatever process has its number now."""
    small.start(crash="after:1:evaluated").wait()
    lease = json.loads((small.folder / LOCK_NAME).read_text())
    (small.folder / LOCK_NAME).write_text(json.dumps({**lease, "pid": 1}))
    assert holder(small.folder) is None
    small.finish()
    table.check("a stale lease", small)
