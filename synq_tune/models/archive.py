"""A zip file around a checkpoint: its one member, and how much of it is taken.

It imports no torch, so that what cannot be fetched is said before anything heavy is loaded.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import PurePosixPath

from synq_tune.errors import InputError
from synq_tune.models.file_kinds import MEMBERS

MAX_BYTES = 2 << 30
"""Largest checkpoint that is unpacked or downloaded."""
# RuntimeError: the member is encrypted, or packed in a way zipfile does not know.
ZIP_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)


def weights_member(archive: zipfile.ZipFile, where: str) -> zipfile.ZipInfo:
    """The one `.pth` file in an archive, or where there is none the one file of another suffix.

    Args:
        archive: as it is published; other files in it are passed over.
        where: what errors call it.

    Raises:
        InputError: there is none or more than one, or it is larger than `MAX_BYTES`.
    """
    names = {info: PurePosixPath(info.filename) for info in archive.infolist()}
    shown = {i: n for i, n in names.items() if not n.name.startswith(".")}
    found = [i for i, n in shown.items() if n.suffix == ".pth"]
    found = found or [i for i, n in shown.items() if n.suffix in MEMBERS[:-1]]
    if len(found) != 1:
        raise InputError(f"{where}: `one .pth file is inside` must hold, but got {len(found)}.")
    if found[0].file_size > MAX_BYTES:
        raise InputError(
            f"{where}: `size <= {MAX_BYTES} bytes` must hold, but got {found[0].file_size}."
        )
    return found[0]
