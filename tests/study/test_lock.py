"""One driver per study, also when drivers die."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from synq_tune.errors import InputError
from synq_tune.study.lock import holder, study_lock

HOLD = """
import sys, time
from pathlib import Path
from synq_tune.study.lock import study_lock
with study_lock(Path(sys.argv[1])):
    {before}
    print("held", flush=True)
    time.sleep(60)
"""
FORK = "import os; os.fork() or (time.sleep(60), os._exit(0))"


def hold(folder: Path, before: str = "pass") -> subprocess.Popen:
    """A real process that holds the lock, in a session of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(before=before), str(folder)],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_second_driver_is_told_who_holds_it(tmp_path: Path) -> None:
    """The refusal is one line with process and host."""
    process = hold(tmp_path)
    try:
        with pytest.raises(InputError) as error, study_lock(tmp_path):
            pass
    finally:
        end(process)
    assert f"process {process.pid} on {socket.gethostname()}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("before", ["pass", FORK], ids=["alone", "with a forked child"])
def test_dead_holder_frees_the_lock(tmp_path: Path, before: str) -> None:
    """A driver killed with -9 blocks nobody, even if a child of it lives on."""
    process = hold(tmp_path, before)
    try:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with study_lock(tmp_path):
            found = holder(tmp_path)
            assert found is not None and found.pid == os.getpid()
    finally:
        end(process)


def test_lock_is_free_after_the_block(tmp_path: Path) -> None:
    """Drivers may follow each other."""
    for _ in range(2):
        with study_lock(tmp_path):
            pass
    assert holder(tmp_path) is None


def test_looking_is_no_driving(tmp_path: Path) -> None:
    """Whoever asks for the holder neither makes nor takes a lock."""
    assert holder(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_refresh_is_a_sign_of_life(tmp_path: Path) -> None:
    """A holder can show when it was last alive."""
    with study_lock(tmp_path) as lock:
        first = holder(tmp_path)
        lock.refresh()
        second = holder(tmp_path)
    assert first is not None and second is not None
    assert second.since == first.since and second.seen > first.seen
