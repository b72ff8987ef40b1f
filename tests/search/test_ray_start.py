"""Ray starts whatever the environment says, waits on a busy machine, and gets none of our signals."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from synq_tune.search.ray_start import RayEnded, wait_patiently

pytestmark = pytest.mark.ray

_START = """
import os, signal, sys
from synq_tune.process.home import lend_home
from synq_tune.search.ray_start import local_ray, processes_in
import ray

lend_home()
told = []
for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(kind, lambda number, frame: told.append(number))

@ray.remote
def where():
    return os.getcwd(), os.getsid(0)

from synq_tune.search.cluster import ray_cluster
with ray_cluster(None) as machines:
    first = ray.get(where.remote())
    for pid in [os.getpid(), *processes_in({first[1]})]:
        for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, kind)
    assert ray.get(where.remote()) == first
    assert first[0] == os.getcwd() and first[1] != os.getsid(0)
    session = ray._private.worker._global_node._session_dir
assert sorted(told) == [1, 2, 15], told
assert processes_in({first[1]}) == [], "something is left of Ray"
print(session)
"""

BAD = {
    "TMPDIR": "{tmp}/" + "x" * 90,
    "HOME": "/proc",
    "RAY_AUTH_MODE": "token",
    "RAY_ADDRESS": "192.0.2.1:6379",
    "RAY_REDIS_ADDRESS": "192.0.2.1:6379",
    "RAY_TMPDIR": "/nonexistent",
    "http_proxy": "http://192.0.2.1:9",
    "https_proxy": "http://192.0.2.1:9",
    "grpc_proxy": "http://192.0.2.1:9",
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONIOENCODING": "ascii",
    "COLUMNS": "none",
}
"""Each of them once stopped Ray, or tied it to something else."""


def _start(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / ("x" * 90)).mkdir(exist_ok=True)
    named = {name: value.format(tmp=tmp_path) for name, value in environment.items()}
    return subprocess.run(
        [sys.executable, "-c", _START], env={**os.environ, **named}, cwd=tmp_path,
        capture_output=True, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.mark.long
def test_all_at_once(tmp_path: Path) -> None:
    """Workers are in the driver's folder; signals to every process leave Ray at work; nothing is left."""
    done = _start(tmp_path, **BAD)
    assert done.returncode == 0, done.stderr
    # raylet waits for its agent a fixed time, which on a busy machine is not always enough.
    said = [line for line in done.stderr.splitlines() if "once more" not in line]
    assert said == []
    session = Path(done.stdout.strip())
    assert not session.parent.exists(), list(session.parent.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD)
def test_one_by_one(tmp_path: Path, name: str) -> None:
    """One may have hidden another."""
    done = _start(tmp_path, **{name: BAD[name]})
    assert done.returncode == 0, done.stderr


_STOPPED = (
    """
import os, signal, subprocess, threading, time
from synq_tune.search import ray_start

def stop(process):
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(40)
    os.kill(process.pid, signal.SIGCONT)

apart = ray_start._apart
def stopped(*arguments, **options):
    process = apart(*arguments, **options)
    if NAME in process.args[0]:
        threading.Thread(target=stop, args=(process,), daemon=True).start()
    return process

ray_start._apart = stopped
"""
    + _START
)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_busy_machine_is_waited_for(tmp_path: Path, name: str) -> None:
    """Longer than the 30 s that Ray gives itself."""
    code = f"NAME = {f'/{name}'!r}\n{_STOPPED}"
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started > 40


_BROKEN = """
import sys
from ray._private import services
from synq_tune.commands.ending import exit_code
from synq_tune.search.cluster import ray_cluster

services.GCS_SERVER_EXECUTABLE = "/bin/false"

def main(argv):
    with ray_cluster(None):
        return 0

sys.exit(exit_code(main))
"""


@pytest.mark.long
def test_what_does_not_start_is_one_line(tmp_path: Path) -> None:
    """At once, not when patience ends; the folder of the logs it names is there."""
    done = subprocess.run(
        [sys.executable, "-c", _BROKEN], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 2, done.stderr
    *_, last = done.stderr.splitlines()
    assert "`Ray starts on this machine` must hold" in last and "ended with 1" in last
    logs = Path(last.rpartition("logs are in ")[2].rstrip("."))
    assert logs.is_dir()
    shutil.rmtree(logs.parents[1])


def test_waiting_ends_with_the_process_waited_for() -> None:
    """Nobody waits minutes for what has ended."""
    ended = subprocess.Popen(["false"])
    ended.wait()

    def not_ready() -> None:
        raise RuntimeError("not yet")

    with pytest.raises(RayEnded, match="its false ended with 1"):
        wait_patiently([ended], not_ready)


def test_waiting_takes_as_long_as_it_takes() -> None:
    """Until it succeeds."""
    answers = iter([RuntimeError(), RuntimeError(), 5])

    def soon() -> int:
        answer = next(answers)
        if isinstance(answer, RuntimeError):
            raise answer
        return answer

    assert wait_patiently([], soon) == 5
