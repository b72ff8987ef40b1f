"""Every file of a folder, a zip or a tar archive: which are images, and what is passed over."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from synq_tune.data.decode import ImageFile, is_image
from synq_tune.errors import InputError


@dataclass
class Listing:
    """What was found under one root."""

    images: list[tuple[PurePosixPath, ImageFile]] = field(default_factory=list)
    """Path below the root and file, sorted by path."""
    folders: set[PurePosixPath] = field(default_factory=set)
    """Every folder that is not hidden, below the root."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Reason → number of files that are not read."""
    others: Counter[PurePosixPath] = field(default_factory=Counter)
    """Folder → number of visible files in it that are no images."""

    def add(self, path: PurePosixPath, file: ImageFile) -> None:
        """Take a file for an image, or count why not."""
        if any(is_hidden(part) for part in path.parts):
            self.skipped["hidden files"] += 1
        elif is_image(path.name):
            self.images.append((path, file))
        else:
            suffix = path.suffix.lower() or "none"
            self.skipped[f"files that are no images (suffix {suffix})"] += 1
            self.others[path.parent] += 1


def is_hidden(name: str) -> bool:
    """Whether a file manager made it or hides it."""
    return name.startswith(".") or name == "__MACOSX"


@contextmanager
def listed(path: Path) -> Iterator[Listing]:
    """The files of a folder or an archive; an archive stays open inside the `with`.

    Raises:
        InputError: the archive is damaged, or a name in it leaves it; a folder cannot be read.
    """
    if path.is_dir():
        yield _folder(path)
    elif tarfile.is_tarfile(path):
        with _opened_tar(path) as archive:
            yield _tar(path, archive)
    else:
        try:
            with zipfile.ZipFile(path) as archive:
                yield _zip(path, archive)
        except zipfile.BadZipFile as error:
            raise InputError(
                f"{path}: `the zip file is whole` must hold, but got: {error}."
            ) from error


def _folder(root: Path) -> Listing:
    """Links to folders are followed, but not into a folder that is being read already."""
    listing = Listing()
    _walk(root, PurePosixPath(), listing, frozenset({os.path.realpath(root)}))
    listing.images.sort(key=lambda pair: pair[0])
    return listing


def _walk(folder: Path, below: PurePosixPath, listing: Listing, above: frozenset[str]) -> None:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(
            f"{folder}: `the folder can be read` must hold, but got: {error.strerror}."
        ) from error
    for entry in entries:
        path, real = below / entry.name, os.path.realpath(entry.path)
        if entry.is_dir() and real in above:
            listing.skipped["links to a folder above"] += 1
        elif entry.is_dir() and is_hidden(entry.name):
            listing.skipped["hidden folders"] += 1
        elif entry.is_dir():
            listing.folders.add(path)
            _walk(Path(entry.path), path, listing, above | {real})
        elif entry.is_file():
            listing.add(path, ImageFile(entry.path, partial(open, entry.path, "rb")))
        else:
            listing.skipped["broken links and other things that are no files"] += 1


def _check_inside(archive: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise InputError(f"{archive}: `names stay inside the archive` must hold, but got {name}.")
    return path


def _zip(path: Path, archive: zipfile.ZipFile) -> Listing:
    """Members are read from the archive and never unpacked."""
    listing = Listing()
    for info in archive.infolist():
        inside = _check_inside(path, info.filename)
        if info.is_dir():
            _add_folders(listing, inside)
        else:
            _add_folders(listing, inside.parent)
            listing.add(inside, ImageFile(f"{path}: {inside}", partial(archive.open, info)))
    listing.images.sort(key=lambda pair: pair[0])
    return listing


def _add_folders(listing: Listing, folder: PurePosixPath) -> None:
    for part in (folder, *folder.parents):
        if part.parts and not any(is_hidden(name) for name in part.parts):
            listing.folders.add(part)


@contextmanager
def _opened_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """A packed archive is unpacked to a temporary file first: members are read in any order."""
    try:
        with tarfile.open(path) as packed:
            if packed.fileobj is None or isinstance(packed.fileobj, io.BufferedReader):
                yield packed
                return
            packed.fileobj.seek(0)
            with tempfile.TemporaryFile() as plain:
                shutil.copyfileobj(packed.fileobj, plain, 1 << 20)
                plain.seek(0)
                with tarfile.open(fileobj=plain) as archive:
                    yield archive
    except (tarfile.TarError, EOFError) as error:
        raise InputError(
            f"{path}: `the tar archive is whole` must hold, but got: {error}."
        ) from error


def _tar(path: Path, archive: tarfile.TarFile) -> Listing:
    listing, lock = Listing(), threading.Lock()
    for member in archive:
        inside = _check_inside(path, member.name)
        if member.isdir():
            _add_folders(listing, inside)
        elif member.isreg():
            _add_folders(listing, inside.parent)
            listing.add(
                inside, ImageFile(f"{path}: {inside}", partial(_read, archive, member, lock))
            )
        else:
            listing.skipped["links inside the archive"] += 1
    listing.images.sort(key=lambda pair: pair[0])
    return listing


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo, lock: threading.Lock) -> IO[bytes]:
    """A member's content; the archive has one place to read at, for all threads."""
    with lock:
        file = archive.extractfile(member)
        return io.BytesIO(b"" if file is None else file.read())
