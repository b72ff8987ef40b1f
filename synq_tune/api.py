"""A study as an object, for notebooks and scripts of one's own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synq_tune.config import StudySpec
from synq_tune.errors import InputError
from synq_tune.study.ledger import Ledger
from synq_tune.study.status import format_status
from synq_tune.study.summary import summarize

if TYPE_CHECKING:
    import argparse

    import pandas


class Study:
    """A study on disk, read from its ledger; a driver may be at work on it meanwhile."""

    def __init__(self, folder: str | Path) -> None:
        """Read the study in `folder`.

        Raises:
            InputError: there is no study, or it is damaged.
        """
        self.folder = Path(folder).expanduser().resolve()
        self.refresh()

    def refresh(self) -> Study:
        """Read the ledger again; returns the study."""
        ledger = Ledger.open(self.folder, read_only=True)
        self._state = ledger.state
        ledger.close()
        self._summary = summarize(self._state, self.folder)
        return self

    @property
    def spec(self) -> StudySpec:
        """The settings."""
        return self._state.spec

    @property
    def trials(self) -> pandas.DataFrame:
        """One row per search trial: number, state, `params.*`, `metrics.*`, epochs_run, seconds,
        error."""
        import pandas

        return pandas.json_normalize(self._summary["trials"], sep=".")

    @property
    def best(self) -> dict[str, Any] | None:
        """{number, params, metrics, export_dir} of the best completed trial; None without any."""
        return self._summary["best"]

    @property
    def front(self) -> pandas.DataFrame:
        """One row per point of the front of a study with several objectives: number, `values.*`,
        seeds, is_knee, `params.*`; empty in one with a single objective."""
        import pandas

        return pandas.json_normalize(self._summary.get("front", []), sep=".")

    @property
    def ladder(self) -> pandas.DataFrame:
        """One row per rung, accuracies in percent; empty before the study has measured it."""
        import pandas

        return pandas.DataFrame(self._summary["ladder"])

    def to_optuna(self) -> Any:
        """The finished search trials as an `optuna.Study` in memory; see `search.to_optuna`."""
        from synq_tune.search.to_optuna import to_optuna

        return to_optuna(self._state)

    def __repr__(self) -> str:
        return f"Study({str(self.folder)!r})\n{format_status(self._state, self.folder)}"


def search(
    space: str | Path | None = None,
    sets: Mapping[str, Any] | Sequence[str] | str = (),
    **options: Any,
) -> Study:
    """Run a study, as `synq-tune search` does, and return it.

    It is returned also where no trial finished (`best` is None) or MLflow has not taken everything:
    a line on stderr says so.

    Args:
        space: name or file; None with `resume`.
        sets: settings to change: {"finetune.lr": 0.01}, or "finetune.lr=0.01", or a list of such.
        options: of the command, such as num_trials=8, val_data="photos.zip", output_dir="out",
            store="store", resume="studies/x", deterministic=True; `start` is its `--from`.

    Raises:
        InputError: an option, the settings, the folder or the data are wrong; `dry_run`, which makes
            no study; a thread other than the main one, where no signal can be heeded.
        KeyboardInterrupt: the study was interrupted; `resume` goes on with it.
    """
    from synq_tune.commands.search import search_command, study_folder
    from synq_tune.process.exit_codes import INTERRUPTED

    _ask_call(space)
    given = {"space": space, **options}
    arguments = _parsed([*_words(given), *(f"--set={text}" for text in _texts(sets))])
    if arguments.dry_run:
        raise InputError(
            "`search makes a study` must hold, but got dry_run=True. "
            "Use `synq-tune search --dry-run`."
        )
    folder = study_folder(arguments)
    if not arguments.resume:
        arguments.output_dir = str(folder)
    if search_command(arguments) == INTERRUPTED:
        raise KeyboardInterrupt
    return Study(folder)


def _ask_call(space: Any) -> None:
    if isinstance(space, StudySpec):
        raise InputError(
            "`space is a name or a file` must hold, but got a StudySpec. "
            f"Give its name, {space.name!r}, and what you changed as `sets`."
        )
    if threading.current_thread() is not threading.main_thread():
        raise InputError(
            "`search runs in the main thread` must hold, but got "
            f"thread={threading.current_thread().name}. Call it there, or run `synq-tune search`."
        )


def _texts(sets: Mapping[str, Any] | Sequence[str] | str) -> list[str]:
    """Settings as `--set` has them."""
    if isinstance(sets, str):
        return [sets]
    if isinstance(sets, Mapping):
        return [f"{key}={_yaml(key, value)}" for key, value in sets.items()]
    return list(sets)


def _yaml(key: str, value: Any) -> str:
    """A value as YAML, of which JSON is a part."""

    def plain(other: Any) -> Any:
        if isinstance(other, os.PathLike):
            return os.fspath(other)
        if hasattr(other, "tolist"):  # NumPy's numbers and arrays, tensors
            return other.tolist()
        raise InputError(
            f"{key}: `the value is plain` must hold, but got {type(other).__name__}. "
            "Give numbers, texts, lists or dicts."
        )

    return json.dumps(value, default=plain, ensure_ascii=False)


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    """What the command line makes of them; where it would end the process, an InputError."""
    from synq_tune.cli.search import parse

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return parse(words)
    except SystemExit:
        reason = said.getvalue().strip().rpartition("error: ")[2].splitlines()[-1]
    raise InputError(
        f"`the options are those of synq-tune search` must hold, but got {reason}. "
        "`synq-tune search --help` lists them."
    )


def _words(options: Mapping[str, Any]) -> list[str]:
    """Keyword arguments as the command line has them; `start` is its `--from`."""
    words: list[str] = []
    for name, value in options.items():
        flag = "--from" if name == "start" else f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif value is not None and value is not False:
            words.append(f"{flag}={value}")
    return words
