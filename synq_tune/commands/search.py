"""What `scripts/search.py` does before anything heavy is imported: settings, folder, header,
lock."""

from __future__ import annotations

import argparse
import math
import os
import socket
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from synq_tune.config import StudySpec
from synq_tune.config.load import load_space
from synq_tune.errors import ForeignError, InputError, first_line, is_full_disk
from synq_tune.models.fetch_first import fetch_first
from synq_tune.process.exit_codes import INTERRUPTED, NOT_UPLOADED, NOTHING_FINISHED
from synq_tune.process.invocation import command_line
from synq_tune.process.signals import Interrupts, heeding
from synq_tune.store import store_folder
from synq_tune.study.ledger import LEDGER_NAME, Ledger
from synq_tune.study.lock import LOCK_NAME, study_lock
from synq_tune.study.places import place_options, remember_places
from synq_tune.study.preflight import ask_output, ask_places, ask_process
from synq_tune.study.stages import Budget
from synq_tune.study.status import format_status
from synq_tune.study.summary import damaged_export, write_summary

DETERMINISTIC_WIDTH = 4
"""Trials on the way with `--deterministic`; not the machine's cores, or another machine would
search elsewhere."""


def search_command(arguments: argparse.Namespace) -> int:
    """Start or resume a study; returns the exit code (0, 3, 4 or 130).

    Raises:
        InputError: the settings, the folder or the data are wrong.
    """
    ask_process()
    if arguments.dry_run:
        return _dry_run(_spec(arguments), arguments)
    folder = study_folder(arguments)
    with heeding() as interrupts:
        interrupts.last_words = partial(_say_how_to_go_on, folder, arguments)
        try:
            return _search(folder, arguments, interrupts)
        except KeyboardInterrupt:
            _say_how_to_go_on(folder, arguments)
            return INTERRUPTED


def _search(folder: Path, arguments: argparse.Namespace, interrupts: Interrupts) -> int:
    if arguments.resume:
        Ledger.open(folder, read_only=True).close()  # an InputError before the lock makes a file
        with study_lock(folder):
            return _go_on(Ledger.open(folder), arguments, interrupts)
    spec = _spec(arguments)
    ask_output(folder)
    # The header is written by rename, whole or not at all; whoever holds the lock goes on from it.
    Ledger.create(folder, spec).close()
    try:
        with study_lock(folder):
            return _go_on(Ledger.open(folder), arguments, interrupts)
    finally:
        _remove_if_empty(folder)


def _say_how_to_go_on(folder: Path, arguments: argparse.Namespace) -> None:
    """Print the command that goes on; what the ledger remembers need not be repeated."""
    if not (folder / LEDGER_NAME).is_file():
        print("interrupted before the study began", file=sys.stderr, flush=True)
        return
    line = resume_line(folder, arguments)
    print(f"interrupted; go on with: {line}", file=sys.stderr, flush=True)


def resume_line(folder: Path, arguments: argparse.Namespace) -> str:
    """The command that goes on with a study as this driver was told to, quoted for a shell.

    The ledger remembers store and tracking store, but a signal may come before they are in it. It
    does not hold a cluster's address: that may be another next time. A password that was given is
    not printed.
    """
    more = ["--ray-address", arguments.ray_address] if arguments.ray_address else []
    more += place_options(getattr(arguments, "store", None), arguments.tracking_uri)
    if arguments.resume:  # these are of a driver; a new study has them in its header
        for name in ("max_concurrent", "gpus_per_trial", "max_hours"):
            value = getattr(arguments, name)
            more += [f"--{name.replace('_', '-')}", f"{value:g}"] if value is not None else []
    return command_line("search.py", "--resume", folder, *more)


def _remove_if_empty(folder: Path) -> None:
    """A study refused before any work leaves no folder behind."""
    if [path.name for path in folder.iterdir()] == [LOCK_NAME]:
        (folder / LOCK_NAME).unlink()
        folder.rmdir()


def _go_on(ledger: Ledger, arguments: argparse.Namespace, interrupts: Interrupts) -> int:
    folder = ledger.folder
    _extend(ledger, arguments)
    # A study that ran out of time goes on when it is given more, and one whose export is damaged.
    is_whole = is_finished(ledger) and not damaged_export(ledger.state, folder)
    if is_whole and arguments.max_hours is None:
        print(format_status(ledger.state, folder))
        return 0
    return _drive(ledger, arguments, interrupts)


def _spec(arguments: argparse.Namespace) -> StudySpec:
    space = arguments.space or _of_resumed(arguments)
    flags = {
        "teacher": {"weights": {"file": arguments.weights}},
        "study": {
            "num_trials": arguments.num_trials,
            "max_concurrent": arguments.max_concurrent,
            "gpus_per_trial": arguments.gpus_per_trial,
            "max_hours": arguments.max_hours,
            "target_loss": arguments.target_loss,
            "val_data": _absolute(arguments.val_data),
            "seed": arguments.seed,
        },
    }
    if arguments.weights:
        flags["teacher"]["weights"]["file"] = str(Path(arguments.weights).expanduser().resolve())
    if arguments.deterministic:
        flags["study"]["deterministic"] = arguments.max_concurrent or DETERMINISTIC_WIDTH
    return load_space(space, arguments.sets, flags, arguments.start)


def _of_resumed(arguments: argparse.Namespace) -> str:
    raise InputError(
        f"`--dry-run comes with --space` must hold, but got --resume {arguments.resume}. "
        "Name the study's space instead."
    )


def _absolute(source: str | None) -> str | None:
    """Make the path of a data source independent of the current folder; `digits` has none."""
    if source is None or source == "digits":
        return source
    kind, colon, path = source.rpartition(":")
    return f"{kind}{colon}{Path(path).expanduser().resolve()}"


def study_folder(arguments: argparse.Namespace) -> Path:
    """The folder that the arguments name, or a new one below `studies`."""
    if arguments.resume:
        for name in ("sets", "weights", "val_data", "seed", "deterministic"):
            if getattr(arguments, name):
                flag = "set" if name == "sets" else name.replace("_", "-")
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
            f"`--num-trials >= trials started ({done})` must hold, but got "
            f"{changed['num_trials']}. Give the new total, with those that were started."
        )
    if not 0 <= changed.get("target_loss", 0) < math.inf:
        raise InputError(
            "`--target-loss >= 0 and finite` must hold, but got "
            f"{changed['target_loss']}. It is in points."
        )
    if "target_loss" in changed and study.has_front:
        raise InputError(
            "`a target ends a search by one objective` must hold, but got --target-loss "
            f"{changed['target_loss']} for a study of {', '.join(study.objectives)}. Leave it out."
        )
    ledger.record(Budget(**changed))


def is_finished(ledger: Ledger) -> bool:
    """Whether the study ran to its end and was not extended since."""
    since = ledger.state.sessions[ledger.state.sessions_before_budget :]
    return bool(since) and since[-1]["action"] == "finished"


def _drive(ledger: Ledger, arguments: argparse.Namespace, interrupts: Interrupts) -> int:
    folder = ledger.folder
    is_first = not ledger.state.sessions and not arguments.resume
    try:
        store = remember_places(ledger, arguments.store, arguments.tracking_uri)
        ask_places(ledger, store)
        fetch_first(ledger.state.spec.teacher, store)
        _session(ledger, "started")
        return _run(ledger, store, arguments, interrupts)
    except KeyboardInterrupt:
        _record_interrupted(ledger)
        raise
    except Exception as error:
        if interrupts.requested.is_set():  # it came of the signal, such as an import cut short
            _record_interrupted(ledger)
            raise KeyboardInterrupt from error
        error.study_folder = folder
        if isinstance(error, InputError):
            _discard_if_unstarted(ledger, is_first, error)
            raise
        if not is_full_disk(error):
            raise
        raise InputError(
            f"`the disk has room` must hold, but got {first_line(error)}. Nothing is lost: free some, "
            f"then go on with: {resume_line(folder, arguments)}"
        ) from None


def _discard_if_unstarted(ledger: Ledger, is_first: bool, error: InputError) -> None:
    """A folder made for a study that never started must not stay behind.

    Somebody else's error may come after hours of synthesis, though: such a study can go on.
    """
    state = ledger.state
    has_work = isinstance(error, ForeignError) and state.stages.teacher is not None
    if is_first and not state.runs and not has_work:
        ledger.discard()


def _session(ledger: Ledger, action: str) -> None:
    ledger.append("session", action=action, pid=os.getpid(), host=socket.gethostname())


def _run(ledger: Ledger, store: Path, arguments: argparse.Namespace, interrupts: Interrupts) -> int:
    # torch, Ray, Optuna and MLflow take seconds to import: the header is on disk by now.
    from synq_tune.search.driver import Options, StudyDriver
    from synq_tune.study.console import no_trial_line, study_lines

    options: Any = Options(
        folder=ledger.folder,
        store=store,
        ray_address=arguments.ray_address,
        tracking_uri=arguments.tracking_uri,
        upload_images=arguments.upload_images,
        max_concurrent=arguments.max_concurrent,
        gpus_per_trial=arguments.gpus_per_trial,
        max_hours=arguments.max_hours,
    )
    interrupts.check()
    driver = StudyDriver(ledger, options, interrupts)
    try:
        best = driver.run()
    except KeyboardInterrupt:
        _session(ledger, "interrupted")
        driver.show_interrupted()
        _say_report(driver.report)
        raise
    if best is None:
        _say_report(driver.report)
        print(no_trial_line(ledger.state), file=sys.stderr)
        return NOTHING_FINISHED
    print("\n".join(study_lines(ledger.state)))
    _say_report(driver.report)
    print("\n".join(driver.tracked.closing_lines()))
    missing = driver.tracked.missing
    return _not_uploaded(missing, resume_line(ledger.folder, arguments)) if missing else 0


def _say_report(report: Path | None) -> None:
    """Where the page is; that it could not be written is said already."""
    if report is not None:
        print(f"report    {report}", flush=True)


def _not_uploaded(missing: list[str], resume: str) -> int:
    print(
        f"not finished: MLflow has not taken {', '.join(missing)}; upload with: {resume}",
        file=sys.stderr,
    )
    return NOT_UPLOADED


def _record_interrupted(ledger: Ledger) -> None:
    # A second signal may have come while the first was being recorded, or one before there was a
    # driver.
    sessions = ledger.state.sessions
    if sessions and sessions[-1]["action"] != "interrupted":
        _session(ledger, "interrupted")
    write_summary(ledger.state, ledger.folder)


def _dry_run(spec: StudySpec, arguments: argparse.Namespace) -> int:
    store = store_folder(arguments.store)
    fetch_first(spec.teacher, store)
    from synq_tune.commands.dry_run import estimate, format_estimate

    print(format_estimate(estimate(spec, store)))
    return 0
