"""Whether a study's folder may be believed: what it says decides which code runs and what is
deleted."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from synq_tune.errors import InputError

_NAME = re.compile(r"\w[\w.-]*")
_STORE = re.compile(r"/(?!(.*/)?\.\.?(/|$)).*")
_DATASET = re.compile(r"/(?!(.*/)?\.\.?/).*/datasets/\w[\w.-]*")


def check_owner(*paths: Path) -> None:
    """Refuse a study of somebody else, and one that anybody can change, as ssh does with its files.

    Root's are believed, since root needs no study to run code; a group may share studies.

    Args:
        paths: the folder, and what decides in it.

    Raises:
        InputError: says whose it is, and what to do.
    """
    for path in paths:
        found = path.stat()
        if found.st_uid not in (os.geteuid(), 0):
            raise InputError(
                f"`the study is yours` must hold, but {path} belongs to user {found.st_uid} and you "
                f"are {os.geteuid()}. A study can name code to run: copy the folder if you trust it."
            )
        if found.st_mode & stat.S_IWOTH:
            raise InputError(
                f"`only you and your group can change the study` must hold, but got {path} with mode "
                f"{stat.S_IMODE(found.st_mode):o}. If you trust what is in it: chmod -R o-w {paths[0]}"
            )


def check_names(event: Mapping[str, Any]) -> None:
    """Refuse an event of a ledger with a name that would lead out of its folder.

    Raises:
        InputError: says which.
    """
    for what, value, pattern in _parts_of_paths(event):
        if pattern.fullmatch(str(value)) is None:
            raise InputError(f"`{what}` must hold, but got {value!r}.")


def _parts_of_paths(event: Mapping[str, Any]) -> Iterator[tuple[str, Any, re.Pattern[str]]]:
    """(what must hold, value, its pattern) of all in an event that becomes part of a path."""
    for name in ("id", "key", "epoch"):
        if name in event:
            yield f"{name} is a plain name", event[name], _NAME
    if event["event"] == "stage" and event["name"] == "best":
        for name in event["data"].get("files", ()):
            yield "a file of best/ has a plain name", name, _NAME
    if event["event"] == "stage" and event["name"] == "places":
        yield "the store is an absolute path", event["data"].get("store"), _STORE
    if event["event"] == "stage" and event["name"] == "dataset":
        yield "the dataset is STORE/datasets/NAME", event["data"].get("path"), _DATASET
