"""Where Ray's processes on this machine keep sockets, logs and shared memory."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from pathlib import Path

from synq_tune.errors import InputError
from synq_tune.study.files import ray_roots

_SOCKET_BYTES = 107
"""Of a Unix socket's path, at most."""
_BELOW = len("/session_2026-01-31_23-59-59_123456_4194304/sockets/plasma_store_0")
_MIN_BYTES = 128 * 2**20
"""Of free disk: logs, and objects that do not fit into the shared memory."""
_SHARED_MEMORY = Path("/dev/shm")


def make_ray_place(prefix: str) -> Path:
    """A new folder of this user's alone for Ray, with a path short enough for its sockets.

    Args:
        prefix: of its name.

    Raises:
        InputError: no folder will do; says why for each.
    """
    reasons = []
    for root in ray_roots():
        try:
            return _try(root, prefix)
        except OSError as error:
            reasons.append(f"{root}: {error.strerror or error}")
    raise InputError(
        "`Ray finds a folder for its sockets and logs` must hold, but got "
        f"{'; '.join(reasons)}. Set TMPDIR to a short path on a local disk with room."
    )


def _try(root: Path, prefix: str) -> Path:
    """Make the folder in `root`.

    Raises:
        OSError: it is too long or too full, cannot be written, or takes no sockets.
    """
    if shutil.disk_usage(root).free < _MIN_BYTES:
        raise OSError(f"less than {_MIN_BYTES >> 20} MiB are free")
    place = Path(tempfile.mkdtemp(prefix=prefix, dir=root))
    try:
        name = str(place)
        if len(os.fsencode(name)) + _BELOW > _SOCKET_BYTES:
            raise OSError(f"its path is too long for sockets ({_SOCKET_BYTES} bytes)")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.bind(f"{name}/probe")
        os.unlink(f"{name}/probe")
    except OSError:
        shutil.rmtree(place, ignore_errors=True)
        raise
    return place


def plasma_folder(place: Path, size: int) -> str | None:
    """Where objects are shared; None for Ray's own choice, which is /dev/shm.

    Args:
        place: Ray's folder, used where /dev/shm is missing, small (as in containers) or not ours.
        size: of the objects, in bytes.
    """
    try:
        is_large = shutil.disk_usage(_SHARED_MEMORY).free > 1.1 * size
    except OSError:
        is_large = False
    return None if is_large and os.access(_SHARED_MEMORY, os.W_OK | os.X_OK) else str(place)
