"""What a study's folder, its ledger and the projections of it disagree on, and how it is mended.

The ledger is right, always: what is found is judged by it and mended from it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from synq_tune.errors import InputError
from synq_tune.notes import counted
from synq_tune.process.exit_codes import DONE, LEFT
from synq_tune.process.invocation import as_called, command_line
from synq_tune.store import sha256_file
from synq_tune.study.files import (
    leftovers,
    needed_files,
    ray_folders,
    ray_places,
    state_path,
    surplus_files,
)
from synq_tune.study.ledger import Ledger
from synq_tune.study.lock import holder, study_lock
from synq_tune.study.stages import Best
from synq_tune.study.summary import SUMMARY_NAME, damaged_export, summarize, write_summary


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, as a sentence without its full stop."""

    text: str
    mend: Callable[[], None] | None = None
    """Puts it right; None where only the user can."""


Projection = Callable[[Ledger], list[Finding]]
"""Findings of what is made from the ledger elsewhere, such as MLflow's runs."""


def examine(ledger: Ledger, projections: tuple[Projection, ...] = ()) -> list[Finding]:
    """Everything that is wrong with a study that nobody drives; changes nothing.

    Args:
        ledger: opened for reading, or for writing under the study's lock, which mending needs.
        projections: what else is compared with it.
    """
    found = [*_ledger(ledger), *_files(ledger), *_export(ledger)]
    for projection in projections:
        found += projection(ledger)
    # The summary comes last: it shows what the others mend.
    return [*found, *_summary(ledger)]


def _ledger(ledger: Ledger) -> Iterator[Finding]:
    if ledger.torn_bytes:
        yield Finding(
            f"{ledger.path.name}: its last line was torn by a crash "
            f"({counted(ledger.torn_bytes, 'byte')}); it did not happen",
            ledger.drop_torn_line,
        )
    sessions = ledger.state.sessions
    if sessions and sessions[-1]["action"] == "started":
        last, open_runs = (
            sessions[-1],
            [r.key for r in ledger.state.runs.values() if not r.is_final],
        )
        yield Finding(
            f"lock: the driver (process {last.get('pid')} on {last.get('host')}) died; unfinished "
            f"runs: {', '.join(open_runs) or 'none'}",
            partial(_end_session, ledger, last),
        )


def _end_session(ledger: Ledger, last: dict[str, Any]) -> None:
    fields = {key: last[key] for key in ("pid", "host") if key in last}
    ledger.append("session", action="interrupted", **fields)


def _files(ledger: Ledger) -> Iterator[Finding]:
    folder, state = ledger.folder, ledger.state
    for path in leftovers(folder):
        yield Finding(
            f"{_name(path, folder)}: half-written, by a process that was killed", path.unlink
        )
    for path in [*ray_folders(state), *ray_places(state)]:
        yield Finding(f"{path}: left by Ray, of a driver that was killed", partial(_remove, path))
    for path in surplus_files(folder, state):
        yield Finding(f"{_name(path, folder)}: no run needs it", path.unlink)
    for path, sha256 in needed_files(folder, state).items():
        yield from _needed(path, sha256, ledger)


def _needed(path: Path, sha256: str, ledger: Ledger) -> Iterator[Finding]:
    """A checkpoint that is lost costs time: what is damaged goes, and is made again when needed."""
    is_state = path.parent == state_path(ledger.folder, "", 0).parent
    cost = "the run starts again" if is_state else "trained again if it is to be exported"
    if path.is_file() and sha256_file(path) != sha256:
        yield Finding(f"{_name(path, ledger.folder)}: damaged; {cost}", path.unlink)


def _export(ledger: Ledger) -> Iterator[Finding]:
    folder, best = ledger.folder, ledger.state.stages.best
    if best is None:
        return
    for path in damaged_export(ledger.state, folder):
        how = "damaged" if path.is_file() else "missing"
        yield Finding(
            f"{_name(path, folder)}: {how}; export it again: "
            + command_line("search.py", "--resume", folder)
        )
    target = folder.resolve() / "best"
    if Path(best.export_dir) != target:
        yield Finding(
            f"{ledger.path.name}: the export is said to be in {best.export_dir}, but it is here",
            lambda: _restate(ledger, replace(best, export_dir=str(target))),
        )


def _restate(ledger: Ledger, best: Best) -> None:
    """A study that has ended stays so."""
    last = ledger.state.sessions[-1]["action"] if ledger.state.sessions else None
    ledger.record(best)
    if last == "finished":
        ledger.append("session", action="finished")


_ADDED_SINCE = ("finalists",)
"""Keys that summaries of older studies lack; that is no damage."""


def _summary(ledger: Ledger) -> Iterator[Finding]:
    path = ledger.folder / SUMMARY_NAME
    expected = json.loads(json.dumps(summarize(ledger.state, ledger.folder)))
    found = _json_of(path)
    if isinstance(found, dict):
        found = {key: expected[key] for key in _ADDED_SINCE if key not in found} | found
    if found != expected:
        how = "out of date or damaged" if path.is_file() else "missing"
        yield Finding(f"{path.name}: {how}", lambda: write_summary(ledger.state, ledger.folder))


def _json_of(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _name(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder))


def _remove(path: Path) -> None:
    shutil.rmtree(path)


def doctor_command(
    folder: Path,
    fix: bool,
    projections: tuple[Projection, ...] = (),
    options: Sequence[str] = (),
) -> int:
    """Print what is wrong with a study and, with `fix`, mend it; returns 0, or 3 if something is
    left.

    Args:
        folder: of the study.
        fix: mend what can be mended.
        projections: what else to examine.
        options: more of the command line, for the command that is printed.

    Raises:
        InputError: there is no study, its ledger is damaged, or a driver is at work on it.
    """
    folder = folder.expanduser().resolve()
    Ledger.open(folder, read_only=True)  # an InputError before the lock makes a file
    at_work = holder(folder)
    if at_work is not None:
        raise InputError(
            f"`nobody drives the study` must hold, but {at_work} is at work. "
            + as_called("scripts/status.py shows how far it is.")
        )
    if not fix:
        found = examine(Ledger.open(folder, read_only=True), projections)
        return _report(found, folder, options)
    with study_lock(folder):
        return _mend_all(Ledger.open(folder), projections, options)


def _mend_all(ledger: Ledger, projections: tuple[Projection, ...], options: Sequence[str]) -> int:
    """Mend, then look again: what one mend changed, another may have to follow."""
    for _ in range(3):
        mendable = [f for f in examine(ledger, projections) if f.mend is not None]
        if not mendable:
            break
        for finding in mendable:
            print(f"mended: {finding.text}")
            finding.mend()
    return _report(examine(ledger, projections), ledger.folder, options)


def _report(findings: list[Finding], folder: Path, options: Sequence[str]) -> int:
    for finding in findings:
        print(f"{'wrong ' if finding.mend else 'left  '}: {finding.text}")
    if not findings:
        print(f"{folder}: nothing is wrong")
    elif any(finding.mend for finding in findings):
        print(f"mend it with: {command_line('doctor.py', folder, '--fix', *options)}")
    return LEFT if findings else DONE
