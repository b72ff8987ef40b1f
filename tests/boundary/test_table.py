"""Whatever is wrong with the user's input: exit 2, one line that names it, a traceback only in a log."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from synq_tune.commands.ending import exit_code
from synq_tune.errors import ForeignError, InputError, stage
from tests.boundary.material import write_all
from tests.boundary.table import Row, rows
from tests.test_errors import ROOT, script

_SOME = Path("here")
_NAMES = [row.name for row in rows(_SOME)]
_SLOW = {row.name for row in rows(_SOME) if row.is_slow}
_LOG = re.compile(r"The full text is in (\S+\.log)\.")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every bad file there is."""
    folder = tmp_path_factory.mktemp("bad")
    write_all(folder)
    return folder


@pytest.fixture(autouse=True)
def _apart(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Logs without a study go into the test's own folder."""
    (tmp_path / "logs").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "logs"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.chdir(here)
    yield


def _check(row: Row, error: str) -> None:
    lines = error.splitlines()
    assert lines[-1].startswith("error: ") and row.named in lines[-1], error
    assert "Traceback" not in error and (len(lines) == 1 or not row.is_alone), error
    assert "please report" not in error, error
    log = _LOG.search(lines[-1])
    if row.is_foreign is not None:
        assert bool(log) == row.is_foreign, error
    if log:
        assert "Traceback (most recent call last)" in Path(log[1]).read_text()


def test_the_table_is_long() -> None:
    """Every command of the project has rows, and no two rows share a name."""
    table = list(rows(_SOME))
    commands = {row.command for row in table}
    assert commands >= {
        "search", "inspect", "synthesize", "finetune", "evaluate", "export", "status", "doctor", "bench",
        "compare", "choosing", "clean", "coverage", "runtimes", "regret",
    }  # fmt: skip
    assert len(table) > 150 and len(set(_NAMES)) == len(table)


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, marks=[pytest.mark.slow] if name in _SLOW else [], id=name)
        for number, name in enumerate(_NAMES)
    ],
)
def test_a_bad_input_is_one_line(
    number: int, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2; key, file or value are named; what somebody else's code raised is in the log it names."""
    row = list(rows(here))[number]
    assert exit_code(script(row.command).main, [str(a) for a in row.arguments]) == 2
    _check(row, capsys.readouterr().err)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["forward-exit", "import-base", "space-bomb", "evaluate-noise.onnx"]
)
def test_a_process_ends_the_same_way(here: Path, name: str) -> None:
    """As a program, too: exit code and stderr are the same."""
    row = next(row for row in rows(here) if row.name == name)
    command = [sys.executable, str(ROOT / f"scripts/{row.command}.py"), *map(str, row.arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    _check(row, done.stderr)


def _command(action: Callable[[], object]) -> Callable[[object], int]:
    def main(argv: object) -> int:
        action()
        return 0

    return main


def test_a_fault_of_ours_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 1 and a request to report it, so that nobody looks for a mistake in their input."""
    from synq_tune.trial.rungs import grace_epochs

    assert exit_code(_command(lambda: grace_epochs("many"))) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "fault in synq-tune, please report it" in error
    assert "grace_epochs" in Path(_LOG.search(error)[1]).read_text()


def test_the_traceback_can_be_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SYNQ_TUNE_TRACEBACK=1 shows it before the line; the exit code stays."""

    def action() -> None:
        with stage("synthesis"):
            raise KeyError("a layer")

    monkeypatch.setenv("SYNQ_TUNE_TRACEBACK", "1")
    assert exit_code(_command(action)) == 2
    error = capsys.readouterr().err
    assert "Traceback" in error and error.splitlines()[-1].startswith("error: synthesis: KeyError")


def test_credentials_are_in_neither_line_nor_log(capsys: pytest.CaptureFixture[str]) -> None:
    """A library quotes the address it was given."""

    def action() -> None:
        with stage("opening the tracking store"):
            raise RuntimeError("no answer from postgresql://me:hunter2@db/x?token=hunter2")

    assert exit_code(_command(action)) == 2
    error = capsys.readouterr().err
    assert "postgresql://db/x" in error
    assert "hunter2" not in error + Path(_LOG.search(error)[1]).read_text()


def test_a_line_holds_no_control_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """torch's texts carry colours and line breaks."""

    def action() -> None:
        with stage("loading"):
            raise RuntimeError("\x1b[1mdo those\x1b[0m steps\r\nand more")

    assert exit_code(_command(action)) == 2
    assert "RuntimeError: do those steps. The full" in capsys.readouterr().err


def test_where_no_log_can_be_written_the_line_still_comes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says how to see the text instead."""

    def action() -> None:
        with stage("synthesis"):
            raise KeyError("a layer")

    monkeypatch.setattr(tempfile, "tempdir", "/no/such/folder")
    assert exit_code(_command(action)) == 2
    assert "Set SYNQ_TUNE_TRACEBACK=1 to see" in capsys.readouterr().err


def test_a_full_disk_is_the_disks(capsys: pytest.CaptureFixture[str]) -> None:
    """However deep a library has wrapped it, and within a stage, too."""

    def action() -> None:
        with stage("synthesis"):
            try:
                raise OSError(errno.ENOSPC, "No space left on device")
            except OSError as error:
                raise RuntimeError("could not write") from error

    assert exit_code(_command(action)) == 2
    assert "the disk is full" in capsys.readouterr().err


def test_libraries_do_not_chatter(capsys: pytest.CaptureFixture[str]) -> None:
    """A deprecation in a library is none of the user's business; the filters are put back."""
    before = list(warnings.filters)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert exit_code(_command(lambda: warnings.warn("old", FutureWarning, stacklevel=1))) == 0
    assert capsys.readouterr().err == "" and warnings.filters == before


def test_a_stage_lets_pass_what_is_not_foreign() -> None:
    """Our own errors, Ctrl+C and failed assertions of this package keep their type."""
    from synq_tune.data.labelled_cache import load_halves

    for error in (InputError("x"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised, stage("a"):
            raise error
        assert not isinstance(raised.value, ForeignError)
    with pytest.raises(ForeignError, match=r"a \(b=1\): AttributeError"), stage("a", "b=1"):
        load_halves(None, None)
