"""MLflow's store is locked, or its server goes away: the study does not stop, and nothing is missing."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.conftest import FaultTable
from tests.crash.study import TinyStudy

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(3600)]


def test_the_database_is_locked_for_a_minute(study: TinyStudy, table: FaultTable) -> None:
    """Other programs use the file, too; what could not be written is made up for."""
    driver = study.start()
    driver.until_event("evaluated")
    path = study.folder.parent / "mlflow.db"
    with contextlib.closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        time.sleep(60)
        other.execute("ROLLBACK")
    assert driver.wait() == 0, driver.errors()
    table.check("MLflow's database locked for a minute", study)


class Server:
    """`mlflow server` on localhost, to be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1",
            "--port", str(self.port), "--backend-store-uri", f"sqlite:///{self.folder}/server.db",
            "--artifacts-destination", str(self.folder / "artifacts"),
        ]  # fmt: skip
        environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        with open(self.folder / "log", "a") as log:
            self.process = subprocess.Popen(
                command, env=environment, start_new_session=True, stdout=log, stderr=log
            )
        self._wait()

    def _wait(self, seconds: float = 180.0) -> None:
        deadline = time.time() + seconds
        while time.time() < deadline:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.uri}/health", timeout=5)
                return
            time.sleep(0.5)
        raise AssertionError((self.folder / "log").read_text()[-2000:])

    def stop(self) -> None:
        """It goes away, at once."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "server")
    yield server
    server.stop()


def test_the_server_goes_away_and_comes_back(
    study: TinyStudy, server: Server, table: FaultTable
) -> None:
    """The study goes on without it; when it is back, it gets what it missed."""
    study.arguments = ("--tracking-uri", server.uri)
    driver = study.start()
    driver.until_event("evaluated")
    server.stop()
    driver.until_event("finished", 2)
    server.start()
    assert driver.wait() == 0, driver.errors()
    assert "The study goes on" in driver.said()
    table.check("a tracking server that goes away and comes back", study)
