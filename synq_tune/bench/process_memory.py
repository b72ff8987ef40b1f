"""Memory of this process, as Linux counts it."""

from __future__ import annotations

from pathlib import Path

from synq_tune.errors import InputError

_SMAPS = Path("/proc/self/smaps_rollup")
_STATUS = Path("/proc/self/status")


def check_readable() -> None:
    """Raise InputError where the system does not tell."""
    if not _SMAPS.is_file():
        raise InputError(
            f"`{_SMAPS} is there` (Linux) must hold for this benchmark, but it is not."
        )


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    return _fields(_STATUS)["VmRSS"]


def peak_bytes() -> int:
    """The most that was ever in RAM; not `ru_maxrss`, which a new process inherits."""
    return _fields(_STATUS)["VmHWM"]


def pages() -> dict[str, int]:
    """Bytes of this process alone (`private`), and with its share of the common ones (`pss`)."""
    fields = _fields(_SMAPS)
    return {"private": fields["Private_Clean"] + fields["Private_Dirty"], "pss": fields["Pss"]}


def _fields(path: Path) -> dict[str, int]:
    """Bytes by name, of the lines `name:  number kB`."""
    rows = (line.split() for line in path.read_text().splitlines())
    return {r[0].rstrip(":"): 1024 * int(r[1]) for r in rows if len(r) == 3 and r[2] == "kB"}
