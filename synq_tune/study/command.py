"""What `scripts/search.py` does before anything heavy is imported: settings, folder, header, lock."""

from __future__ import annotations

import argparse
import math
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from synq_tune.config import StudySpec
from synq_tune.errors import ForeignError, InputError, first_line, is_full_disk
from synq_tune.recipes.merge import load_space
from synq_tune.store import DEFAULT_STORE
from synq_tune.study.ledger import Ledger
from synq_tune.study.lock import LOCK_NAME, study_lock
from synq_tune.study.status import format_status
from synq_tune.study.summary import damaged_export, write_summary

DETERMINISTIC_WIDTH = 4
"""Trials on the way with `--deterministic`; not the machine's cores, or another machine would search
elsewhere."""
INTERRUPTED = 130
NO_TRIAL_FINISHED = 3
NOT_UPLOADED = 4


def search_command(arguments: argparse.Namespace) -> int:
    """Start or resume a study; returns the exit code (0, 3, 4 or 130).

    Raises:
        InputError: the settings, the folder or the data are wrong.
    """
    if arguments.dry_run:
        return _dry_run(_spec(arguments), arguments)
    folder = _folder(arguments)
    if arguments.resume:
        Ledger.open(folder, read_only=True).close()  # an InputError before the lock makes a file
        with study_lock(folder):
            return _go_on(Ledger.open(folder), folder, arguments)
    # The header is written by rename, whole or not at all; whoever holds the lock goes on from it.
    Ledger.create(folder, _spec(arguments)).close()
    try:
        with study_lock(folder):
            return _go_on(Ledger.open(folder), folder, arguments)
    finally:
        _remove_if_empty(folder)


def _remove_if_empty(folder: Path) -> None:
    """A study refused before any work leaves no folder behind."""
    if [path.name for path in folder.iterdir()] == [LOCK_NAME]:
        (folder / LOCK_NAME).unlink()
        folder.rmdir()


def _go_on(ledger: Ledger, folder: Path, arguments: argparse.Namespace) -> int:
    _extend(ledger, arguments)
    # A study that ran out of time goes on when it is given more, and one whose export is damaged.
    is_whole = is_finished(ledger) and not damaged_export(ledger.state, folder)
    if is_whole and arguments.max_hours is None:
        print(format_status(ledger.state, folder))
        return 0
    return _drive(ledger, folder, arguments)


def _spec(arguments: argparse.Namespace) -> StudySpec:
    space = arguments.space or _of_resumed(arguments)
    flags = {
        "teacher": {"weights": {"file": arguments.weights}},
        "study": {
            "num_trials": arguments.num_trials, "max_concurrent": arguments.max_concurrent,
            "gpus_per_trial": arguments.gpus_per_trial, "max_hours": arguments.max_hours,
            "target_loss": arguments.target_loss,
            "val_data": _absolute(arguments.val_data), "seed": arguments.seed,
        },
    }  # fmt: skip
    if arguments.weights:
        flags["teacher"]["weights"]["file"] = str(Path(arguments.weights).expanduser().resolve())
    if arguments.deterministic:
        flags["study"]["deterministic"] = arguments.max_concurrent or DETERMINISTIC_WIDTH
    return load_space(space, arguments.sets, flags, arguments.start)


def _of_resumed(arguments: argparse.Namespace) -> str:
    raise InputError(
        f"`--dry-run goes with --space` must hold, but got --resume={arguments.resume}."
    )


def _absolute(source: str | None) -> str | None:
    """Make the path of a data source independent of the current folder; `digits` has none."""
    if source is None or source == "digits":
        return source
    kind, colon, path = source.rpartition(":")
    return f"{kind}{colon}{Path(path).expanduser().resolve()}"


def _folder(arguments: argparse.Namespace) -> Path:
    if arguments.resume:
        for flag in ("sets", "weights", "val_data", "seed", "deterministic"):
            if getattr(arguments, flag):
                raise InputError(
                    f"`--resume keeps the study's settings` must hold, but got --{flag}. "
                    "Start a new study instead."
                )
        return Path(arguments.resume).expanduser().resolve()
    if arguments.output_dir:
        return Path(arguments.output_dir).expanduser().resolve()
    name = _spec(arguments).name
    return Path("studies").resolve() / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def _extend(ledger: Ledger, arguments: argparse.Namespace) -> None:
    """With `--resume`, `--num-trials N` makes the total N and `--target-loss X` the target X."""
    given = {"num_trials": arguments.num_trials, "target_loss": arguments.target_loss}
    study = ledger.state.spec.study
    changed = {k: v for k, v in given.items() if v is not None and v != getattr(study, k)}
    if not arguments.resume or not changed:
        return
    done = len(ledger.state.of_kind("search"))
    if changed.get("num_trials", done) < done:
        raise InputError(
            f"`--num-trials >= trials started ({done})` must hold, but got {changed['num_trials']}."
        )
    if not 0 <= changed.get("target_loss", 0) < math.inf:
        raise InputError(
            "`--target-loss >= 0 and finite` must hold, but got "
            f"{changed['target_loss']}. It is in points."
        )
    ledger.append("stage", name="budget", data=changed)


def is_finished(ledger: Ledger) -> bool:
    """Whether the study ran to its end and was not extended since."""
    sessions = ledger.state.sessions
    budget = ledger.state.stages.get("budget", {}).get("at", 0)
    return bool(sessions) and sessions[-1]["action"] == "finished" and sessions[-1]["at"] > budget


def _drive(ledger: Ledger, folder: Path, arguments: argparse.Namespace) -> int:
    is_first = not ledger.state.sessions
    _session(ledger, "started")
    try:
        return _run(ledger, folder, arguments)
    except InputError as error:
        # Nothing was started: a folder made for this study alone must not stay behind. Somebody else's
        # error may come after hours of synthesis, though.
        state = ledger.state
        has_work = isinstance(error, ForeignError) and "teacher" in state.stages
        if is_first and not state.runs and not has_work:
            ledger.discard()
        error.study_folder = folder
        raise
    except KeyboardInterrupt:
        return _interrupted(ledger, folder)
    except Exception as error:
        if not is_full_disk(error):
            error.study_folder = folder
            raise
        raise InputError(
            f"`the disk has room` must hold, but got {first_line(error)}. Nothing is lost: free some, "
            f"then go on with: python scripts/search.py --resume {folder}"
        ) from None


def _session(ledger: Ledger, action: str) -> None:
    ledger.append("session", action=action, pid=os.getpid(), host=socket.gethostname())


def _run(ledger: Ledger, folder: Path, arguments: argparse.Namespace) -> int:
    # torch, Ray, Optuna and MLflow take seconds to import: the header is on disk by now.
    from synq_tune.search.console import no_trial_line, study_lines
    from synq_tune.search.interrupts import Interrupts
    from synq_tune.search.run import Options, StudyDriver

    options: Any = Options(
        folder=folder,
        store=Path(arguments.store or DEFAULT_STORE).expanduser().resolve(),
        ray_address=arguments.ray_address,
        tracking_uri=arguments.tracking_uri,
        max_concurrent=arguments.max_concurrent,
        gpus_per_trial=arguments.gpus_per_trial,
        max_hours=arguments.max_hours,
    )
    with Interrupts().installed() as interrupts:
        driver = StudyDriver(ledger, options, interrupts)
        try:
            best = driver.run()
        except KeyboardInterrupt:
            _session(ledger, "interrupted")
            driver.show_interrupted()
            raise
        if best is None:
            print(no_trial_line(ledger.state), file=sys.stderr)
            return NO_TRIAL_FINISHED
        print("\n".join([*study_lines(ledger.state), *driver.tracked.closing_lines()]))
        missing = driver.tracked.missing
    return _not_uploaded(missing, folder) if missing else 0


def _not_uploaded(missing: list[str], folder: Path) -> int:
    print(
        f"not finished: MLflow has not taken {', '.join(missing)}; upload with: python "
        f"scripts/search.py --resume {folder}",
        file=sys.stderr,
    )
    return NOT_UPLOADED


def _interrupted(ledger: Ledger, folder: Path) -> int:
    # A second signal may have come while the first was being recorded, or one before there was a driver.
    if ledger.state.sessions[-1]["action"] != "interrupted":
        _session(ledger, "interrupted")
    write_summary(ledger.state, folder)
    print(f"interrupted; go on with: python scripts/search.py --resume {folder}", file=sys.stderr)
    return INTERRUPTED


def _dry_run(spec: StudySpec, arguments: argparse.Namespace) -> int:
    from synq_tune.search.budget import estimate, format_estimate

    print(format_estimate(estimate(spec)))
    return 0
