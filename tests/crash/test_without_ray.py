"""Hundreds of SIGKILLs of a driver without Ray, at every transition and at any time."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from synq_tune.study import ledger as ledger_module
from synq_tune.study.doctor import examine
from synq_tune.study.ledger import Ledger
from synq_tune.study.state import StudyState
from synq_tune.tracking.check import mlflow_findings
from tests.crash.checker import Verdict, check_records, ledger_lines
from tests.crash.conftest import FaultTable
from tests.crash.driver import Fault
from tests.crash.rayless import SPEC, TRIALS, drive

WHERE = ("before", "torn", "after")


def _child(folder: Path, seed: int, crash: str) -> int:
    """Fork a driver; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        if crash:
            fault = Fault(crash)
            ledger_module.Ledger._write = lambda ledger, line: fault.write(ledger, line)
        drive(folder, seed)
        os._exit(0)
    except BaseException:
        import traceback

        (folder.parent / "error").write_text(traceback.format_exc())
        os._exit(1)


def _ended(pid: int, folder: Path) -> int:
    """How a driver ended: 0, or minus the signal."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL), (folder.parent / "error").read_text()
    return code


def _story(state: StudyState) -> dict[str, tuple]:
    """What became of each run; the same for the same seed, killed or not."""
    return {
        run.key: (run.params, run.seed, run.state, run.metrics, run.history, run.epochs_run)
        for run in state.runs.values()
    }


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple]:
    """A study that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "study"
    Ledger.create(folder, SPEC).close()
    assert _ended(_child(folder, 0, ""), folder) == 0
    return _story(Ledger.open(folder, read_only=True).state)


def _finals(folder: Path) -> list[str]:
    return [line for line in ledger_lines(folder) if '"event":"finished"' in line]


def _check(folder: Path, finals: list[str], story: dict[str, tuple]) -> Verdict:
    state = Ledger.open(folder, read_only=True).state
    verdict = check_records(folder, finals, TRIALS)
    assert _story(state) == story
    ledger = Ledger.open(folder, read_only=True)
    assert examine(ledger, (mlflow_findings,)) == []
    return verdict


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "kind", ["transition", pytest.param("random time", marks=pytest.mark.slow)]
)
@pytest.mark.long
def test_nothing_is_lost_or_doubled(
    tmp_path: Path, story: dict[str, tuple], table: FaultTable, without_ray: int, kind: str
) -> None:
    """Each configuration ends once, with the accuracies of a study that nobody disturbed."""
    folder, draw = tmp_path / "studies" / "study", random.Random(1)
    Ledger.create(folder, SPEC).close()
    finals: list[str] = []
    kills, seconds = 0, []
    while True:
        began = time.time()
        crash = f"{draw.choice(WHERE)}:{draw.randint(1, 6)}"
        is_over = kills >= without_ray
        pid = _child(folder, kills, crash if kind == "transition" and not is_over else "")
        if kind == "random time" and not is_over:
            time.sleep(draw.uniform(0.0, 1.5))
            os.kill(pid, signal.SIGKILL)
        if _ended(pid, folder) == 0:
            break
        kills += 1
        seconds.append(time.time() - began)
        now = _finals(folder)
        assert now[: len(finals)] == finals
        finals = now
    table.note(f"SIGKILL at a {kind}, without Ray", _check(folder, finals, story), kills, [])
