"""Two of Ray's nodes on this machine, heard on this machine only."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from synq_tune.errors import InputError

_STARTED = "Ray runtime started"
_OBJECTS = 128 * 2**20
"""Bytes of shared memory of a node."""


@contextlib.contextmanager
def two_raylets() -> Iterator[str]:
    """A head and a second node with a core each, as far as Ray's accounts go; yields the address.

    Raises:
        InputError: a node does not start.
    """
    address = f"127.0.0.1:{_free_port()}"
    head = ("--head", f"--port={address.rpartition(':')[2]}", "--include-dashboard=false")
    nodes: list[subprocess.Popen[str]] = []
    # These nodes are told from others by their port; a token would have to lie in HOME.
    with _variables({"RAY_AUTH_MODE": "disabled"}):
        try:
            for arguments in (head, (f"--address={address}",)):
                nodes.append(_node(*arguments))
                _wait(nodes[-1])
            yield address
        finally:
            for node in nodes:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(node.pid, signal.SIGKILL)
                node.wait()


def _node(*arguments: str) -> subprocess.Popen[str]:
    """`ray start --block`, in a session of its own."""
    program = str(Path(sys.executable).with_name("ray"))
    command = [program, "start", "--block", "--disable-usage-stats", "--num-cpus=1",
               "--node-ip-address=127.0.0.1", f"--object-store-memory={_OBJECTS}"]  # fmt: skip
    return subprocess.Popen(
        [*command, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"},
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def _wait(node: subprocess.Popen[str]) -> None:
    said = []
    for line in node.stdout or ():
        said.append(line)
        if _STARTED in line:
            return
    raise InputError(
        f"`ray start works on this machine` must hold, but it said: {''.join(said)[-300:]}"
    )


@contextlib.contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            os.environ.pop(name)
            if name in before:
                os.environ[name] = before[name]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
