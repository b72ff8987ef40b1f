"""Start Ray on this machine, for this machine alone, or join a cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray._private import utils
from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError, RpcError

from synq_tune.errors import InputError
from synq_tune.process.signals import KINDS
from synq_tune.search.environment import check_nodes
from synq_tune.search.ray_start import local_ray
from synq_tune.search.resources import Machine

_PATIENCE = 10.0
"""Seconds within which a cluster's head takes a connection."""
_TOKEN = "Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file with the cluster's token."


@contextlib.contextmanager
def ray_cluster(
    address: str | None, py_modules: Sequence[str] = (), prefix: str = "sqt_"
) -> Iterator[list[Machine]]:
    """Start Ray on this machine, or join the cluster at `address`; yields its machines.

    Args:
        address: a running cluster's, or None.
        py_modules: packages and modules of the user that a cluster's machines may not have.
        prefix: of the folder that Ray gets where it is started.

    Raises:
        InputError: Ray does not start, the cluster cannot be joined, or a machine of it does not
            run what this one does.
    """
    joined_or_own = _joined(address, py_modules) if address else local_ray(prefix)
    with _own_signals() as take_back, joined_or_own:
        take_back()
        _hide_token()
        alive = (node["Resources"] for node in ray.nodes() if node["Alive"])
        yield [(there.get("CPU", 0.0), there.get("GPU", 0.0)) for there in alive]


@contextlib.contextmanager
def _joined(address: str, py_modules: Sequence[str]) -> Iterator[None]:
    try:
        _join(address, {"runtime_env": {"py_modules": list(py_modules)}} if py_modules else {})
        check_nodes()
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _own_signals() -> Iterator[Callable[[], None]]:
    """Keep the driver's handlers: Ray sets its own where it starts, and the default where it ends.

    Yields what takes them back from Ray's own code, which sees SIGTERM as a crash and aborts.
    """
    handlers = {kind: signal.getsignal(kind) for kind in KINDS}
    set_sigterm_handler = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None

    def take_back() -> None:
        for kind, handler in handlers.items():
            signal.signal(kind, handler)

    try:
        yield take_back
    finally:
        utils.set_sigterm_handler = set_sigterm_handler
        take_back()


def _hide_token() -> None:
    """Ray writes its token, with which code can be run in its workers, for everyone to read."""
    path = Path.home() / ".ray" / "auth_token"
    is_ours = os.access(path, os.W_OK) and path.is_file()
    if is_ours and path.stat().st_mode & 0o077:
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
        AuthenticationError: the head wants another token, or a token is asked for and there is
            none.
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
