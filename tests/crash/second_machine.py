"""A machine of its own for a raylet: other files under /tmp, HOME and the study, another network.

Namespaces of this machine: what is hidden is another file system there, the address another one,
and `kill` leaves nothing of it behind. It takes root.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.crash.cluster import free_port, kill, start_node, wait_for, wait_for_nodes

ROOT = Path(__file__).parents[2]
HERE, THERE = "198.18.77.1", "198.18.77.2"
"""Addresses kept free for tests of networks (RFC 2544)."""

_LINK = "synq77"

# What is kept (Python, this package) may lie within what is hidden: it is put aside meanwhile.
_MACHINE = """
set -eu
mount -t tmpfs tmpfs /mnt
number=0
for path in $KEEP; do mkdir /mnt/$number; mount --bind $path /mnt/$number; number=$((number + 1)); done
for path in $HIDE; do mkdir -p $path; mount -t tmpfs tmpfs $path; done
mount -t tmpfs tmpfs /dev/shm
number=0
for path in $KEEP; do mkdir -p $path; mount --bind /mnt/$number $path; number=$((number + 1)); done
for path in $SEALED; do mkdir -p $path; mount -t tmpfs -o ro tmpfs $path; done
until ip link set synq77b up 2>/dev/null; do sleep 0.05; done
ip link set lo up
ip address add $THERE/30 dev synq77b
cd /
exec "$@"
"""


def why_not() -> str | None:
    """Why there can be no second machine here; None if there can."""
    try:
        done = subprocess.run(
            ["unshare", "--mount", "--net", "ip", "link", "set", "lo", "up"],
            capture_output=True, text=True,
        )  # fmt: skip
    except FileNotFoundError as error:
        return f"{error.filename} is not installed"
    return f"unshare is not permitted: {done.stderr.strip()}" if done.returncode else None


@dataclass
class SecondMachine:
    """A cluster of this machine, which has no CPU to give, and another one."""

    address: str
    node: subprocess.Popen[bytes]

    def run(self, *command: str) -> str:
        """What a command says that sees the other machine's files."""
        within = ["nsenter", "--mount", f"--target={self.node.pid}", *command]
        return subprocess.run(within, capture_output=True, text=True, check=True).stdout


@contextlib.contextmanager
def second_machine(hidden: Path, sealed: Path | None = None) -> Iterator[SecondMachine]:
    """Start both raylets; all trials run on the second machine.

    Args:
        hidden: a folder that is another one there, besides /tmp and HOME.
        sealed: a folder that is empty there and cannot be written.
    """
    port = free_port()
    memory = f"--object-store-memory={128 * 2**20}"
    nodes: list[subprocess.Popen[bytes]] = []
    try:
        nodes.append(_other(hidden, sealed, f"--address={HERE}:{port}", memory, "--num-cpus=1"))
        _connect(nodes[0])
        head = ["--head", f"--port={port}", "--include-dashboard=false", memory, "--num-cpus=0"]
        nodes.append(start_node(*head, address=HERE))
        wait_for(f"{HERE}:{port}")
        wait_for_nodes(f"{HERE}:{port}", 2)
        yield SecondMachine(f"{HERE}:{port}", nodes[0])
    finally:
        for node in nodes:
            kill(node)


def _other(hidden: Path, sealed: Path | None, *arguments: str) -> subprocess.Popen[bytes]:
    keep = dict.fromkeys([str(ROOT), sys.prefix, sys.base_prefix])
    hide = dict.fromkeys(["/tmp", os.environ.get("HOME", "/root"), str(hidden)])
    inner = [path for path in hide if Path(path).is_dir()]
    variables = [f"KEEP={' '.join(keep)}", f"HIDE={' '.join(inner)}", f"THERE={THERE}"]
    variables += [f"SEALED={sealed or ''}"]
    within = ["env", *variables, "unshare", "--mount", "--net", "bash", "-c", _MACHINE, "machine"]
    return start_node(*arguments, address=THERE, within=within)


def _connect(node: subprocess.Popen[bytes]) -> None:
    """A cable between the two, which goes when the other machine does."""
    mine = os.readlink("/proc/self/ns/net")
    deadline = time.time() + 30
    while os.readlink(f"/proc/{node.pid}/ns/net") == mine:
        assert time.time() < deadline, "no network namespace after 30 s"
        time.sleep(0.05)
    for command in (
        f"link add {_LINK}a type veth peer name {_LINK}b netns {node.pid}",
        f"address add {HERE}/30 dev {_LINK}a",
        f"link set {_LINK}a up",
    ):
        subprocess.run(["ip", *command.split()], check=True)
