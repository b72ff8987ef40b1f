"""What a study needs of its surroundings, asked within a second and before any work."""

from __future__ import annotations

import os
import resource
import tempfile
from pathlib import Path

from synq_tune.errors import InputError
from synq_tune.process.home import can_write
from synq_tune.study.ledger import Ledger
from synq_tune.study.places import tracking_path

MIN_FILES = 1024
"""Open files that Ray, its workers' pipes and the libraries need together."""
_ENOUGH_FILES = 65536


def ask_process() -> None:
    """Check what every study needs of its process, and mend what can be mended.

    Raises:
        InputError: one line with the fix.
    """
    _ask_current_folder()
    _ask_temporary_folder()
    _ask_open_files()
    _spare_proxies()


def ask_places(ledger: Ledger, store: Path) -> None:
    """Check that the study's folder, the store and MLflow's file can be written.

    A store that holds datasets may be only read: the study's own may be among them.

    Raises:
        InputError: one line with the fix.
    """
    _ask_writable("the study's folder", ledger.folder, "--output-dir DIR")
    if not (store / "datasets").is_dir():
        _ask_writable("the store", store, "--store DIR")
    database = tracking_path(ledger.state, ledger.folder)
    if database is not None:
        option = "--tracking-uri sqlite:////DIR/mlflow.db"
        _ask_writable("the folder of MLflow's database", database.parent, option)
        if database.exists() and not os.access(database, os.W_OK):
            raise InputError(_line("MLflow's database", database, "it is only read", option))


def ask_output(folder: Path) -> None:
    """Check that a new study's folder can be made.

    Raises:
        InputError: one line with the fix.
    """
    _ask_writable("the study's folder", folder, "--output-dir DIR")


def _ask_writable(what: str, folder: Path, option: str) -> None:
    """Look at the folder, or at the nearest one above it that there is."""
    try:
        nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
        reason = can_write(nearest)
    except OSError as error:
        nearest, reason = folder, error.strerror
    if reason is not None:
        where = folder if nearest == folder else f"{folder} (in {nearest})"
        raise InputError(_line(what, where, reason, option))


def _line(what: str, where: object, reason: str, option: str) -> str:
    return (
        f"`{what} can be written` must hold, but got {where}: {reason}. Make it writable, free some "
        f"disk, or choose another with {option}."
    )


def _ask_current_folder() -> None:
    try:
        os.getcwd()
    except FileNotFoundError:
        raise InputError(
            "`the current folder exists` must hold, but it was deleted. Change to another: cd ~"
        ) from None


def _ask_temporary_folder() -> None:
    """Python tries TMPDIR, TEMP, TMP, then /tmp, /var/tmp, /usr/tmp; what it found is for all."""
    try:
        found = tempfile.gettempdir()
    except FileNotFoundError:
        raise InputError(
            "`there is a folder for temporary files` must hold, but none of TMPDIR="
            f"{os.environ.get('TMPDIR', '')}, /tmp and /var/tmp can be written (missing, read-only "
            "or full). Set TMPDIR to a folder that can."
        ) from None
    # Other libraries, and processes of Ray, take TMPDIR as it stands.
    if "TMPDIR" in os.environ:
        os.environ["TMPDIR"] = found


def _ask_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted < MIN_FILES:
        raise InputError(
            f"`ulimit -n >= {MIN_FILES}` must hold, but this shell allows {hard} open files. Run: "
            f"ulimit -n {MIN_FILES} (or raise the hard limit of whoever started it)."
        )


def _spare_proxies() -> None:
    """Keep talk within this machine from a proxy that the environment names."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return
    spared = [os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY")]
    hosts = [host for text in spared for host in text.split(",") if host]
    value = ",".join(dict.fromkeys([*hosts, "localhost", "127.0.0.1", "::1"]))
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = value
