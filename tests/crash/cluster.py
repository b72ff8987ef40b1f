"""Ray clusters of this machine that outlive a driver."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(address: str, seconds: float = 120.0) -> None:
    """Until the head answers."""
    host, _, port = address.partition(":")
    deadline = time.time() + seconds
    while time.time() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port))):
            return
        time.sleep(0.2)
    raise AssertionError(f"no Ray head at {address} after {seconds:.0f} s")


_COUNT = """
import sys, time, ray
ray.init(address=sys.argv[1], log_to_driver=False)
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[2]):
    time.sleep(0.2)
"""


def wait_for_nodes(address: str, count: int) -> None:
    """Until all nodes have joined: a driver divides what is there when it starts."""
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-c", _COUNT, address, str(count)]
    subprocess.run(command, env=environment, check=True, timeout=300, capture_output=True)


def start_node(
    *arguments: str, address: str = "127.0.0.1", within: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """`ray start --block` in a process group of its own.

    Args:
        address: of the node.
        within: a command that runs what follows it.
    """
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    environment["OMP_WAIT_POLICY"] = "passive"
    # A token that is in HOME would be asked for; these clusters are heard on this machine only.
    environment["RAY_AUTH_MODE"] = "disabled"
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    program = str(Path(sys.executable).with_name("ray"))
    return subprocess.Popen(
        [*within, program, "start", "--block", "--disable-usage-stats",
         f"--node-ip-address={address}", *arguments],
        env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def kill(node: subprocess.Popen[bytes]) -> None:
    """A node of the cluster disappears: raylet, workers and all."""
    if node.poll() is None:
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()


@contextlib.contextmanager
def cluster(
    *cpus: int, within: Sequence[str] = ()
) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A head with `cpus[0]` CPUs and a node for each further number; yields address and nodes.

    Args:
        within: a command that runs the further nodes.
    """
    port = free_port()
    address = f"127.0.0.1:{port}"
    memory = f"--object-store-memory={128 * 2**20}"
    head = ["--head", f"--port={port}", "--include-dashboard=false", memory]
    nodes = [start_node(*head, f"--num-cpus={cpus[0]}")]
    try:
        for count in cpus[1:]:
            node = (f"--address={address}", memory, f"--num-cpus={count}")
            nodes.append(start_node(*node, within=within))
        wait_for(address)
        wait_for_nodes(address, len(cpus))
        yield address, nodes
    finally:
        for node in nodes:
            kill(node)
