"""Files that are whole or absent: atomic writes, SHA-256 sums and content addresses."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from synq_tune.errors import InputError
from synq_tune.process.home import is_lent

DEFAULT_STORE = "~/.cache/synq_tune"


def store_folder(given: str | None = None) -> Path:
    """The absolute path of the store asked for, or of the default one.

    Raises:
        InputError: it is in a home that is not there.
    """
    named = given or DEFAULT_STORE
    if named.startswith("~") and is_lent():
        raise InputError(
            "`HOME is a folder of yours` must hold, because the store of synthetic images is in it "
            f"({named}). Set HOME, or pass --store DIR."
        )
    return Path(named).expanduser().resolve()


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_address(value: Any) -> str:
    """Name of whatever was made from `value` alone: 32 hex digits of its SHA-256."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:32]


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_dir(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed onto it when the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
        fsync_dir(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON atomically; NaN is refused."""
    write_bytes(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path` between processes; the kernel frees it when a holder dies.

    Raises:
        InputError: there cannot be a lock, such as on a disk that is only read.
    """
    import fcntl

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a")  # noqa: SIM115
    except OSError as error:
        raise _no_lock(path, error) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise _no_lock(path, error) from None
        yield


def _no_lock(path: Path, error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return error
    return InputError(
        f"`{path.parent} can be written and locked` must hold, but got: {error.strerror}. Choose "
        "another folder (--store, --output-dir or --tracking-uri)."
    )


def once(path: Path, make: Callable[[Path], None]) -> bool:
    """Make `path` unless it exists; of several processes one makes it and the others wait.

    Returns:
        Whether this call made it.
    """
    if path.exists():  # whole, since it appears by rename: a store that is only read will do
        return False
    with file_lock(path.with_name(path.name + ".lock")):
        if path.exists():
            return False
        with atomic_path(path) as temporary:
            make(temporary)
        return True
