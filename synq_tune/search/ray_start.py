"""Ray for one study on one machine: patient, out of the driver's signals, heard on this machine
only."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray._private import node, ray_constants, services, worker

from synq_tune.errors import InputError
from synq_tune.process.home import can_write
from synq_tune.process.signals import KINDS
from synq_tune.search.ray_place import make_ray_place, plasma_folder

_OBJECT_STORE_BYTES = 256 * 2**20
_STARTS = 3
_PATIENCE = 240.0
"""Seconds that each of Ray's processes has to begin; its own 30 are not enough on a busy
machine."""
_SYSTEM = {"worker_register_timeout_seconds": 300, "agent_register_timeout_ms": 240_000}
_OF_OTHERS = (
    "RAY_ADDRESS", "RAY_REDIS_ADDRESS", "RAY_TMPDIR", "RAY_JOB_CONFIG_JSON_ENV_VAR",
    "RAY_GCS_SERVER_PORT", "RAY_gcs_storage",
)  # fmt: skip
"""Variables that tie what is started here to another cluster."""
TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"


class RayEnded(Exception):
    """One of Ray's processes ended while it was waited for."""


@contextlib.contextmanager
def local_ray(prefix: str) -> Iterator[None]:
    """Start Ray on this machine, for this process alone; its folder is gone afterwards.

    Args:
        prefix: of the folder's name.

    Raises:
        InputError: it does not start; names the folder of its logs, which stays.
    """
    place = make_ray_place(prefix)
    started: list[subprocess.Popen] = []
    with _environment(place):
        try:
            _start(place, started)
        except BaseException as error:
            _stop(started)
            if not isinstance(error, InputError):  # which names the logs
                shutil.rmtree(place, ignore_errors=True)
            raise
        try:
            yield
        finally:
            _stop(started)
            shutil.rmtree(place, ignore_errors=True)


def _stop(started: list[subprocess.Popen]) -> None:
    """End Ray and its workers, which are in the sessions of its processes.

    Without asking them by SIGTERM first, to which they are deaf: Ray would wait a second for each.
    """
    head = worker._global_node
    if head is not None:
        end = head.kill_all_processes
        head.kill_all_processes = lambda **options: end(**options | {"allow_graceful": False})
    ray.shutdown()
    sessions = {process.pid for process in started}
    deadline = time.monotonic() + 5
    while (left := processes_in(sessions)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in started:
            process.poll()
        time.sleep(0.02)
    started.clear()


def processes_in(sessions: set[int]) -> list[int]:
    """Processes of these sessions that are left, where the system tells (Linux)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            pid, _, rest = stat.read_text(encoding="utf-8", errors="replace").partition(" ")
            state, _, _, session, *_ = rest.rpartition(")")[2].split()
            if int(session) in sessions and state != "Z":
                found.append(int(pid))
    return found


def _start(place: Path, started: list[subprocess.Popen]) -> None:
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE_BYTES,
        "_temp_dir": str(place),
        "_plasma_directory": plasma_folder(place, _OBJECT_STORE_BYTES),
        "_system_config": _SYSTEM,
    }
    for left in reversed(range(_STARTS)):
        try:
            # "local": by default Ray would join any cluster that runs on this machine.
            with _for_this_machine(started):
                ray.init("local", **options)
            return
        except Exception as error:
            _stop(started)
            reason = " ".join(str(error).split())[:200]
            if not left:
                raise InputError(
                    f"`Ray starts on this machine` must hold, but got: {reason}. "
                    f"Its logs are in {place}/session_latest/logs."
                ) from error
            print(f"Ray did not start, once more: {reason}", file=sys.stderr)


@contextlib.contextmanager
def _environment(place: Path) -> Iterator[None]:
    """Variables that Ray and its workers read, while it runs."""
    before = dict(os.environ)
    for name in _OF_OTHERS:
        os.environ.pop(name, None)
    has_token = {TOKEN_PATH, "RAY_AUTH_TOKEN"} & os.environ.keys()
    if not has_token and os.environ.get("RAY_AUTH_MODE") != "disabled":
        _settle_token(place)
    try:
        yield
    finally:
        for name in {*_OF_OTHERS, TOKEN_PATH}:
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


def _settle_token(place: Path) -> None:
    """Ray keeps its token in HOME; where that cannot be, it is this study's alone."""
    folder = Path.home() / ".ray"
    token = folder / "auth_token"
    if token.exists():
        is_usable = os.access(token, os.R_OK)
    else:
        is_usable = can_write(folder if folder.exists() else Path.home()) is None
    if not is_usable:
        path = place / "auth_token"
        path.touch(0o600)
        path.write_text(secrets.token_hex(32), encoding="utf-8")
        os.environ[TOKEN_PATH] = str(path)


@contextlib.contextmanager
def _for_this_machine(started: list[subprocess.Popen]) -> Iterator[None]:
    """Let Ray start for this machine alone; it has no settings of its own for these.

    With 127.0.0.1 as its address, as it does by itself on macOS and Windows: otherwise its ports
    would be open to the network. Without its API server, which asks Azure, Google and AWS over the
    network whether this machine is theirs, even without a dashboard and with usage statistics
    switched off. With processes that do not get the driver's signals, and with patience.
    """
    patient = partial(wait_patiently, started)
    changes: list[tuple[Any, str, Any]] = [
        (ray_constants, "ENABLE_RAY_CLUSTER", False),
        # As after a failed start.
        (services, "start_api_server", lambda *arguments, **options: (None, None)),
        (services, "ConsolePopen", partial(_apart, services.ConsolePopen, started)),
        (services, "get_node", partial(patient, services.get_node)),
        (node, "wait_for_persisted_port", _in_slices(patient, node.wait_for_persisted_port)),
    ]
    before = [(where, name, getattr(where, name)) for where, name, _ in changes]
    for where, name, value in changes:
        setattr(where, name, value)
    try:
        yield
    finally:
        for where, name, value in before:
            setattr(where, name, value)


def _apart(popen: type, started: list[subprocess.Popen], *arguments: Any, **options: Any) -> Any:
    """Start a process that the driver's signals do not reach, sent to its group or to all
    processes.

    It has a session of its own, and is deaf to what supervisors send to every process of a service,
    as it begins with the signals blocked. It still dies with the driver: Ray asks that of the
    kernel.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, KINDS)
    try:
        process = popen(*arguments, start_new_session=True, **options)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    started.append(process)
    return process


def wait_patiently(
    started: list[subprocess.Popen], function: Callable[..., Any], *arguments: Any, **options: Any
) -> Any:
    """Call until it succeeds, a process of Ray's has ended, or patience has."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return function(*arguments, **options)
        except RuntimeError as error:
            for process in started:
                if process.poll() is not None:
                    name = Path(process.args[0]).name
                    raise RayEnded(f"its {name} ended with {process.returncode}") from error
            if time.monotonic() > deadline:
                raise RayEnded(f"not ready within {_PATIENCE:.0f} s: {error}") from error
            time.sleep(0.1)


def _in_slices(patient: Callable[..., Any], wait: Callable[..., int]) -> Callable[..., int]:
    """Wait in Python, where signals are heeded, instead of for long in Ray's own code."""

    def sliced(*arguments: Any, timeout_ms: int, **options: Any) -> int:
        if timeout_ms < 1000:
            return wait(*arguments, timeout_ms=timeout_ms, **options)
        return patient(wait, *arguments, timeout_ms=1000, **options)

    return sliced
