"""What lies in the store that studies share, who uses it, and what can go.

Everything in it is made from settings and seeds and can be made again; deleting costs time, never a
result. What a study that is being driven may be reading is never deleted.
"""

from __future__ import annotations

import fnmatch
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from synq_tune.errors import InputError
from synq_tune.notes import counted
from synq_tune.study.ledger import LEDGER_NAME, Ledger
from synq_tune.study.lock import holder

KINDS = ("datasets", "views", "probes", "labelled", "teachers")
"""Folders of a store; datasets come first, the others are made from them."""


@dataclass(frozen=True)
class Entry:
    """One thing in the store."""

    kind: str
    path: Path
    size: int
    """Bytes."""
    age: float
    """Days since it was last written."""
    studies: tuple[str, ...] = field(default=())
    """Names of the folders of the studies that were made from it, where the ledger says so."""
    is_in_use: bool = False
    """Whether a study that is being driven may be reading it."""

    @property
    def name(self) -> str:
        """As `--name` takes it."""
        return f"{self.kind}/{self.path.stem}"


def entries(store: Path, studies: Path) -> list[Entry]:
    """Everything in a store, the largest first.

    Args:
        store: its folder.
        studies: folder of the study folders.

    Raises:
        InputError: there is no such store.
    """
    if not store.is_dir():
        raise InputError(f"`the store is a folder` must hold, but got --store={store}.")
    users, live = _users(studies)
    found = [
        _entry(
            kind, path, users.get(path.resolve(), ()), bool(live) and _may_be_read(kind, path, live)
        )
        for kind in KINDS
        for path in (store / kind).glob("*")
        if not path.name.endswith((".lock", ".tmp"))
    ]
    return sorted(found, key=lambda entry: -entry.size)


def _users(studies: Path) -> tuple[dict[Path, tuple[str, ...]], set[Path]]:
    """Names of studies by the dataset they use, and the datasets of those being driven now."""
    users: dict[Path, tuple[str, ...]] = {}
    live: set[Path] = set()
    for ledger in sorted(studies.glob(f"*/{LEDGER_NAME}")):
        folder = ledger.parent
        stage = Ledger.open(folder, read_only=True, anyones=True).state.stages.dataset
        dataset = Path(stage.path).resolve() if stage else Path()
        users[dataset] = (*users.get(dataset, ()), folder.name)
        if holder(folder) is not None:
            live.add(dataset)
    return users, live


def _may_be_read(kind: str, path: Path, live: set[Path]) -> bool:
    """Whether a study that runs now may read a file.

    A study does not write down which views and probes it reads, so any may be. It names its dataset
    once it has one; until then any dataset may be.
    """
    return kind != "datasets" or Path() in live or path.resolve() in live


def _entry(kind: str, path: Path, studies: tuple[str, ...], is_in_use: bool) -> Entry:
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    size = sum(p.stat().st_size for p in files)
    age = (time.time() - max([p.stat().st_mtime for p in (path, *files)])) / 86400
    return Entry(kind, path, size, age, studies, is_in_use)


def chosen(found: Iterable[Entry], older_than: float | None, names: Iterable[str]) -> list[Entry]:
    """Entries at least `older_than` days old whose name matches one of the patterns, if there are
    any.

    Raises:
        InputError: a pattern matches nothing.
    """
    found, names = list(found), list(names)
    for pattern in names:
        if not any(fnmatch.fnmatch(entry.name, pattern) for entry in found):
            known = ", ".join(entry.name for entry in found[:3]) or "nothing"
            raise InputError(
                f"`--name matches something in the store` must hold, but got {pattern!r}. There is: "
                f"{known}{', …' if len(found) > 3 else ''}"
            )
    return [
        entry
        for entry in found
        if (older_than is None or entry.age >= older_than)
        and (not names or any(fnmatch.fnmatch(entry.name, pattern) for pattern in names))
    ]


def delete(entry: Entry) -> None:
    """Remove it from the store, with the lock beside it.

    Raises:
        InputError: a study that is being driven may be reading it.
    """
    if entry.is_in_use:
        raise InputError(
            f"`no study uses {entry.name}` must hold, but a study at work may read it. Wait for its end."
        )
    shutil.rmtree(entry.path) if entry.path.is_dir() else entry.path.unlink()
    entry.path.with_name(entry.path.name + ".lock").unlink(missing_ok=True)


def table(found: Iterable[Entry]) -> str:
    """One line per entry, and the sum."""
    found = list(found)
    lines = [
        f"{entry.size / 2**20:9.1f} MiB  {entry.age:6.1f} days  {entry.name}"
        f"{'  in use' if entry.is_in_use else ''}"
        f"{'  ' + ', '.join(entry.studies) if entry.studies else ''}"
        for entry in found
    ]
    total = sum(entry.size for entry in found) / 2**20
    return "\n".join([*lines, f"{total:9.1f} MiB in {counted(len(found), 'entry', 'entries')}"])
