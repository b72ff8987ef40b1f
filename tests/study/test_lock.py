"""One driver per study, also when drivers die."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from synq_tune.errors import InputError
from synq_tune.study import lock
from synq_tune.study.lock import LOCK_NAME, Holder, boot_id, holder, study_lock

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


def _of_another_machine(folder: Path, seen: float = 0.0, **changes: object) -> None:
    """Leave the lease of a driver whose kernel's lock nobody sees here, as on NFS without locks."""
    lease = {"pid": 7, "host": "elsewhere", "boot_id": "other", "since": 1.0, "seen": seen}
    folder.mkdir(exist_ok=True)
    text = json.dumps(lease | changes).ljust(200) + "\n"
    with open(folder / LOCK_NAME, "r+" if (folder / LOCK_NAME).exists() else "w") as file:
        file.write(text)  # in place, as a holder does: never empty in between


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.05)
    monkeypatch.setattr(lock, "SILENCE", 0.5)


def test_the_holder_shows_that_it_lives(tmp_path: Path, quick: None) -> None:
    """Its lease changes by itself, and is empty once it ended in order."""
    with study_lock(tmp_path):
        first = holder(tmp_path)
        time.sleep(0.3)
        second = holder(tmp_path)
    assert first is not None and second is not None and second.seen > first.seen
    assert "last sign of life 0 s ago" in str(second)
    assert (tmp_path / LOCK_NAME).read_text() == ""


def test_a_silent_lease_of_another_machine_is_taken_over(
    tmp_path: Path, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is looked at for a while, and its clock does not matter."""
    _of_another_machine(tmp_path, seen=time.time() + 1e6)
    with study_lock(tmp_path):
        found = holder(tmp_path)
        assert found is not None and found.pid == os.getpid()
    assert "last driven by process 7 on elsewhere" in capsys.readouterr().err


@pytest.mark.parametrize("clock", [0.0, 1e10], ids=["slow clock", "fast clock"])
def test_a_lease_of_another_machine_that_changes_is_respected(
    tmp_path: Path, quick: None, clock: float
) -> None:
    """Even where this machine's kernel gives the lock."""
    _of_another_machine(tmp_path, seen=clock)
    timer = threading.Timer(0.2, _of_another_machine, (tmp_path, clock + 10))
    timer.start()
    with pytest.raises(InputError, match="process 7 on elsewhere"), study_lock(tmp_path):
        pass
    timer.join()


def test_a_lease_from_before_the_last_boot_is_nobodys(tmp_path: Path) -> None:
    """This machine was switched off: nobody is waited for."""
    _of_another_machine(tmp_path, seen=1.0, host=socket.gethostname())
    started = time.monotonic()
    with study_lock(tmp_path):
        assert time.monotonic() - started < 5


def test_another_machines_driver_is_shown(tmp_path: Path) -> None:
    """As long as it was seen lately."""
    _of_another_machine(tmp_path, seen=time.time())
    found = holder(tmp_path)
    assert found is not None and found.host == "elsewhere"
    _of_another_machine(tmp_path, seen=time.time() - 3600)
    assert holder(tmp_path) is None


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_flock_the_lease_alone_decides(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A file system without locks is no reason to refuse, nor to drive a study twice."""

    def refuse(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with study_lock(tmp_path):
        pass
    _of_another_machine(tmp_path, seen=5.0)
    timer = threading.Timer(0.2, _of_another_machine, (tmp_path, 15.0))
    timer.start()
    with pytest.raises(InputError, match="one driver per study"), study_lock(tmp_path):
        pass
    timer.join()


def test_refresh_is_a_sign_of_life(tmp_path: Path) -> None:
    """A holder can show when it was last alive."""
    with study_lock(tmp_path) as lock:
        first = holder(tmp_path)
        lock.refresh()
        second = holder(tmp_path)
    assert first is not None and second is not None
    assert second.since == first.since and second.seen > first.seen


@pytest.mark.parametrize(
    ("host", "boot", "age", "is_dead"),
    [
        (None, "another", 1e9, True),  # this machine, before it started anew
        (None, "another", -1.0, False),  # a machine of the same name that lives
        ("elsewhere", "another", 1e9, False),  # its clock tells nothing
        (None, None, 1e9, False),  # this kernel, whose own lock decides
    ],
)
def test_a_holder_is_dead_only_where_its_machine_began_anew(
    host: str | None, boot: str | None, age: float, is_dead: bool
) -> None:
    """A sign of life behind this machine's start is of somebody who lives."""
    host, boot = host or socket.gethostname(), boot or boot_id()
    seen = time.time() - age
    assert Holder(1, host, boot, seen, seen).is_dead == is_dead
