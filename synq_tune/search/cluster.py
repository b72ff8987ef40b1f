"""Start Ray on this machine, for this machine alone, or join a cluster."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants, services
from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError, RpcError

from synq_tune.errors import InputError
from synq_tune.search.nodes import check_nodes
from synq_tune.search.resources import Machine

_OBJECT_STORE_BYTES = 256 * 2**20
_STARTS = 3
_PATIENCE = 10.0
"""Seconds within which a cluster's head takes a connection."""
_TOKEN = "Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file with the cluster's token."


@contextlib.contextmanager
def ray_cluster(address: str | None, py_modules: Sequence[str] = ()) -> Iterator[list[Machine]]:
    """Start Ray on this machine, or join the cluster at `address`; yields its machines.

    Args:
        address: a running cluster's, or None.
        py_modules: packages and modules of the user that a cluster's machines may not have.

    Raises:
        InputError: the cluster cannot be joined, or a machine of it does not run what this one does.
    """
    common: dict[str, Any] = {
        "log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": False,
    }  # fmt: skip
    handlers = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        if address:
            shipped = {"runtime_env": {"py_modules": list(py_modules)}} if py_modules else {}
            _join(address, shipped)
            check_nodes()
        else:
            _start(common)
        _install(handlers)
        alive = (node["Resources"] for node in ray.nodes() if node["Alive"])
        yield [(there.get("CPU", 0.0), there.get("GPU", 0.0)) for there in alive]
    finally:
        ray.shutdown()
        _install(handlers)


def _install(handlers: Mapping[int, Any]) -> None:
    """Take signals back: Ray sets a handler when it starts, and lets SIGTERM kill when it ends."""
    for kind, handler in handlers.items():
        signal.signal(kind, handler)


def _start(common: dict[str, Any]) -> None:
    """Start Ray here; it gives itself 30 s, which on a busy machine may not be enough.

    What a failed start leaves running ends with this process.
    """
    for left in reversed(range(_STARTS)):
        try:
            # "local": by default Ray would join any cluster that runs on this machine.
            with _for_this_machine():
                ray.init("local", object_store_memory=_OBJECT_STORE_BYTES, **common)
            _hide_token()
            return
        except Exception as error:
            ray.shutdown()
            if not left:
                raise
            print(f"Ray did not start, once more: {error}"[:200], file=sys.stderr)


@contextlib.contextmanager
def _for_this_machine() -> Iterator[None]:
    """Let Ray start for this machine alone; it has no settings of its own for these two.

    With 127.0.0.1 as its address, as it does by itself on macOS and Windows: otherwise its ports would be
    open to the network. And without its API server, which asks Azure, Google and AWS over the network
    whether this machine is theirs, even without a dashboard and with usage statistics switched off.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER, services.start_api_server
    ray_constants.ENABLE_RAY_CLUSTER = False
    services.start_api_server = lambda *arguments, **options: (
        None,
        None,
    )  # as after a failed start
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER, services.start_api_server = before


def _hide_token() -> None:
    """Ray writes its token, with which code can be run in its workers, for everyone to read."""
    path = Path.home() / ".ray" / "auth_token"
    if path.is_file() and path.stat().st_mode & 0o077:
        path.chmod(0o600)


def _join(address: str, shipped: dict[str, Any]) -> None:
    if address.startswith("ray://"):  # Ray Client: a driver outside, whose files nobody can read
        raise _not_joined(address, "run the driver on a machine of it, or with `ray job submit`.")
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **shipped)
    except AuthenticationError as error:
        raise _not_joined(address, f"{error.message}. {_TOKEN}") from None
    except (OSError, OverflowError, RpcError, ValueError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not str(error).startswith("Version mismatch"):
            raise  # Ray's own demand: the head's Python and Ray are this process's
        raise _not_joined(address, str(error.__cause__ or error)) from None


def _knock(address: str) -> None:
    """Find out within seconds what Ray itself tries twenty times, up to a quarter of an hour.

    Raises:
        OSError: nobody listens there.
        RpcError: who listens is no head of a cluster.
        AuthenticationError: the head wants another token, or a token is asked for and there is none.
    """
    host, _, port = address.rpartition(":")
    if port.isdigit():  # else `auto`: Ray looks for it on this machine
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
        ensure_token_if_auth_enabled(create_token_if_missing=False)  # without one, the next aborts
        GcsClient(address=address)


def _not_joined(address: str, reason: str) -> InputError:
    line = " ".join(reason.split())[-300:]
    return InputError(
        f"`the Ray cluster can be joined` must hold, but got --ray-address={address}: {line}"
    )
