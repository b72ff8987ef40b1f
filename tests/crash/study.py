"""A tiny real study as a subprocess: real teacher, Ray, Optuna, MLflow; seconds of training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.crash.checker import ledger_lines

DRIVER = Path(__file__).with_name("driver.py")
EPOCHS = 3
SETS = [
    "synthesis.num_images=48", "synthesis.num_holdout=16", "synthesis.batch_size=64",
    "synthesis.iterations=2", "synthesis.center_iterations=2",
    f"finetune.epochs={EPOCHS}", "finetune.batch_size=16", "finetune.num_views=1",
    "finetune.calibration_batches=1", "study.val_data=null", "study.eval_every=1",
    "study.confirm={top: 1, seeds: 2}",
    "search.cam={choice: [gradcam]}", "search.d0={choice: [4]}",
]  # fmt: skip
"""Every epoch is evaluated, so that a checkpoint interval is one epoch."""

PATIENCE = 600.0
"""Seconds after which a study that does not get on is a failure."""


REFUSED = 2
"""Exit code of a driver that did not begin."""


class TinyStudy:
    """A study's folder and the drivers that work on it, one after the other."""

    def __init__(
        self,
        folder: Path,
        sets: list[str] | None = None,
        arguments: tuple[str, ...] = (),
        num_trials: int = 3,
    ) -> None:
        """Nothing starts yet.

        Args:
            folder: of the study; dataset store and MLflow's database go beside it.
            sets: settings on top of `SETS`.
            arguments: of every driver, such as --ray-address.
            num_trials: search trials.
        """
        self.folder, self.arguments, self.num_trials = folder, arguments, num_trials
        self.sets = [*SETS, f"study.num_trials={num_trials}", *(sets or [])]
        self.finals: list[str] = []
        """Lines of final records seen after each fault."""
        self.resumed: list[float] = []
        """Seconds from a driver's start to its first work on a run."""

    @property
    def lines(self) -> list[str]:
        """Whole lines of the ledger."""
        return ledger_lines(self.folder)

    def command(self, *arguments: str) -> list[str]:
        """The driver's command line: a new study, or the one that is there."""
        values = [part for text in self.sets for part in ("--set", text)]
        which = ["--space", "digits_w3a3", "--output-dir", str(self.folder), *values]
        if self.lines:
            which = ["--resume", str(self.folder)]
        store = ["--store", str(self.folder.parent / "store")]
        common = [sys.executable, str(DRIVER), *which, *store, *self.arguments]
        if "--max-concurrent" not in arguments:
            common += ["--max-concurrent", "1"]
        return [*common, *arguments]

    def start(self, *arguments: str, crash: str = "") -> Driver:
        """Start a driver, with a fault built in (see driver.py)."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        return Driver(self, self.command(*arguments), crash)

    def finish(self, *arguments: str) -> Driver:
        """Drive the study to its end, without a fault."""
        driver = self.start(*arguments)
        assert driver.wait() == 0, driver.errors()
        return driver

    def remember(self) -> None:
        """Take down the final records there are, after a fault."""
        now = [line for line in self.lines if '"event":"finished"' in line]
        assert now[: len(self.finals)] == self.finals, "a final record changed"
        self.finals = now


class Driver:
    """A driver's process."""

    def __init__(self, study: TinyStudy, command: list[str], crash: str) -> None:
        self.study, self.began = study, time.time()
        self.log = study.folder.parent / f"{study.folder.name}-{time.time_ns()}.log"
        environment = {**os.environ, "CRASH": crash, "OMP_NUM_THREADS": "1"}
        environment["OMP_WAIT_POLICY"] = "passive"  # threads that spin slow down a busy machine
        environment["RAY_AUTH_MODE"] = "disabled"  # as the clusters of cluster.py
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                command, cwd=study.folder.parent, env=environment, start_new_session=True,
                stdout=log, stderr=log,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """Of the driver."""
        return self.process.pid

    def wait(self, seconds: float = PATIENCE) -> int:
        """The exit code; what it left behind is taken down."""
        code = self.process.wait(seconds)
        if code != REFUSED:
            self._take_down()
        return code

    def until(self, is_so: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Wait until something is so; the driver must not end before."""
        deadline = time.time() + seconds
        while not is_so():
            assert self.process.poll() is None, f"ended too early: {self.errors()}"
            assert time.time() < deadline, f"nothing happened: {self.errors()}"
            time.sleep(0.02)

    def until_event(self, event: str, count: int = 1) -> None:
        """Wait until the ledger has `count` events of one name."""
        self.until(lambda: sum(f'"event":"{event}"' in x for x in self.study.lines) >= count)

    def kill(self, number: int = signal.SIGKILL, group: bool = False) -> int:
        """Send a signal to the driver alone, or to all its processes; returns the exit code."""
        if self.process.poll() is None:
            (os.killpg if group else os.kill)(self.pid, number)
        return self.wait()

    def _take_down(self) -> None:
        self.study.remember()
        if (seconds := self._to_first_work()) is not None:
            self.study.resumed.append(seconds)

    def _to_first_work(self) -> float | None:
        from json import loads

        events = [loads(line) for line in self.study.lines]
        begins = [e["at"] for e in events if e["event"] == "started" and e["at"] > self.began]
        return begins[0] - self.began if begins else None

    def errors(self) -> str:
        """The end of what it printed."""
        return self.log.read_text()[-2000:]

    def said(self) -> str:
        """All it printed."""
        return self.log.read_text()


def workers_of(driver: Driver) -> list[int]:
    """Processes that run the driver's trials, on a Ray that it started itself."""
    return processes_of(driver.pid, "Trainable")


def processes_of(pid: int, name: str = "") -> list[int]:
    """Descendants of a process whose command line contains `name`."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            stat = _read(entry / "stat")
            if stat:
                parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(p for p in found - {pid} if name in _read(Path(f"/proc/{p}/cmdline")))


def _read(path: Path) -> str:
    """A file of /proc; empty when its process is gone."""
    try:
        return path.read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
