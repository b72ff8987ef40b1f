"""The files a worker reads, brought to machines that do not share the driver's disk.

They are read where the driver runs, piece by piece, by whichever machine lacks them, and checked by
their SHA-256 sums; every process of that machine then maps its one copy. A machine that has them,
as the driver's own or one with a common file system, gets nothing.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from synq_tune.errors import InputError
from synq_tune.store import content_address, once, sha256_file

PIECE = 64 * 2**20
"""Bytes that are on their way at a time."""


@dataclass(frozen=True)
class FileManifest:
    """Names and checksums of a study's files. Every worker gets this small list, not the files."""

    store: str
    """The driver's store, absolute."""
    machine: str
    """Ray's name of the machine the driver runs on."""
    sums: dict[str, str]
    """Path within the store → SHA-256, in the order in which they appear."""
    teacher: str | None
    """The path of those that holds the teacher's tensors; None where the package brings them."""
    teacher_identity: str
    """See `models.shared_teacher.identity`."""

    @property
    def is_from_here(self) -> bool:
        """Whether this process runs on the driver's machine."""
        return ray.get_runtime_context().get_node_id() == self.machine


def pack(store: Path, files: Iterable[Path], teacher: Path | None, identity: str) -> FileManifest:
    """Describe files of the driver's store; called by the driver, once it has joined a cluster.

    Args:
        files: all a worker reads; a file whose presence says that others are whole comes after
            them.
        teacher: the teacher's tensors, if the package does not bring them.
        identity: of the teacher.
    """
    paths = [*files, *([teacher] if teacher else [])]
    sums = {str(path.relative_to(store)): sha256_file(path) for path in paths}
    name = str(teacher.relative_to(store)) if teacher else None
    return FileManifest(str(store), ray.get_runtime_context().get_node_id(), sums, name, identity)


def fetch_missing(manifest: FileManifest) -> Path:
    """Bring what this machine lacks; returns its store, in which every file lies as in the
    driver's.

    Of several workers one brings a file and the others wait.

    Raises:
        InputError: a file changed on its way or before it, or there is no place for it here.
    """
    store = Path(manifest.store) if _is_usable(manifest) else _own_folder(manifest)
    for name in manifest.sums:
        if not (store / name).is_file():
            once(store / name, lambda temporary, name=name: bring_file(manifest, name, temporary))
    return store


def _is_usable(manifest: FileManifest) -> bool:
    """Whether the driver's path can be the store here: it can be written, and holds no other data.

    A machine may have made the same dataset itself: its address is then the same, its pixels may
    not be. The manifest tells (safetensors files are named by their contents, or checked by who
    reads).
    """
    store = Path(manifest.store)
    try:
        store.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    small = [(store / n, s) for n, s in manifest.sums.items() if n.endswith(".json")]
    return os.access(store, os.W_OK | os.X_OK) and all(
        sha256_file(path) == sha256 for path, sha256 in small if path.is_file()
    )


def _own_folder(manifest: FileManifest) -> Path:
    """A folder of this user's alone under the temporary one, for these files and no others."""
    name = f"synq_tune_{os.getuid()}_{content_address(manifest.sums)[:12]}"
    folder = Path(tempfile.gettempdir()) / name
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise InputError(
            f"`{folder} is this user's own folder` must hold, but it is somebody else's. Remove it."
        )
    return folder


def bring_file(manifest: FileManifest, name: str, target: Path) -> None:
    """Copy one file from the driver's machine."""
    there = NodeAffinitySchedulingStrategy(manifest.machine, soft=False)
    task = ray.remote(num_cpus=0)(read_piece).options(scheduling_strategy=there)
    source = str(Path(manifest.store) / name)
    with open(target, "wb") as file:
        while piece := ray.get(task.remote(source, file.tell())):
            file.write(piece)
    if sha256_file(target) != manifest.sums[name]:
        raise InputError(
            f"`{source} arrives as it was when the search began` must hold, but its SHA-256 sum is "
            "another one: it was changed or damaged since. Resume the study."
        )


def read_piece(path: str, offset: int, size: int = PIECE) -> bytes:
    """At most `size` bytes of a file from `offset` on; none at its end."""
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)
