"""A printed command line works in the shell that shows it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from synq_tune.process import invocation

_SCRIPT = """
from synq_tune.process.invocation import command_line, same_command_line
print(command_line("other.py", "--resume", "a folder's; name"))
print(same_command_line())
"""


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    folder = tmp_path / "my scripts"
    folder.mkdir()
    (folder / "other.py").write_text("import sys; print(sys.argv[1:])")
    (folder / "one.py").write_text(_SCRIPT)
    return folder


@pytest.mark.parametrize(
    ("python", "script", "where"),
    [
        (sys.executable, "{scripts}/one.py", "/"),
        (sys.executable, "one.py", "{scripts}"),
        (sys.executable, "./one.py", "{scripts}"),
        ("python3", "my scripts/one.py", "{scripts}/.."),
    ],
)
def test_it_runs_as_printed(scripts: Path, python: str, script: str, where: str) -> None:
    """Whatever the folder, the name of the interpreter, and the characters of a path."""
    where = where.format(scripts=scripts)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    first = subprocess.run(
        [python, "-u", script.format(scripts=scripts), "τ x"],
        cwd=where, env=environment, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    again = subprocess.run(
        ["bash", "-c", first[0]], cwd=where, env=environment, capture_output=True, text=True
    )
    assert again.stdout.strip() == str(["--resume", "a folder's; name"]), again.stderr
    assert shlex.split(first[1])[1:] == ["-u", script.format(scripts=scripts), "τ x"]


@pytest.mark.parametrize("python", [sys.executable, os.path.relpath(sys.executable, "/")])
def test_it_runs_from_another_folder(scripts: Path, python: str) -> None:
    """Interpreter and script are absolute, however they were named."""
    script = os.path.relpath(scripts / "one.py", "/")
    first = subprocess.run(
        [python, script], cwd="/", capture_output=True, text=True, check=True
    ).stdout.splitlines()
    again = subprocess.run(["bash", "-c", first[0]], cwd=scripts, capture_output=True, text=True)
    assert again.stdout.strip() == str(["--resume", "a folder's; name"]), again.stderr


def test_the_checkouts_script_is_named_where_another_runs() -> None:
    """Under a test runner, or in a notebook, there is no script beside the one that runs."""
    _, script, _ = shlex.split(invocation.command_line("search.py", "x"))
    assert Path(script).is_file()


def test_an_installed_package_has_no_scripts_to_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study run from Python where only the package is installed goes on with `-m`."""
    monkeypatch.setattr(invocation.synq_tune, "__file__", str(tmp_path / "synq_tune/__init__.py"))
    _, *call = shlex.split(invocation.command_line("search.py", "--resume", "x"))
    assert call == ["-m", "synq_tune", "search", "--resume", "x"]


def test_texts_name_commands_as_the_user_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts are scripts; in the program they are its commands; other files keep their names."""
    text = "see scripts/status.py, or python scripts/search.py --help, or my_scripts/status.py"
    monkeypatch.setattr(invocation, "_PROGRAM", [])
    assert invocation.as_called(text) == text
    monkeypatch.setattr(invocation, "_PROGRAM", ["synq-tune"])
    assert invocation.as_called(text) == (
        "see synq-tune status, or synq-tune search --help, or my_scripts/status.py"
    )


def test_only_scripts_that_are_commands_get_the_programs_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The user's own files keep their names, also in a folder called scripts."""
    text = (
        "scripts/status.py, scripts/net.py, /x/scripts/status.py, scripts/train_digits_teacher.py"
    )
    monkeypatch.setattr(invocation, "_PROGRAM", [])
    assert invocation.as_called(text) == text
    monkeypatch.setattr(invocation, "_PROGRAM", ["synq-tune"])
    assert invocation.as_called(text) == text.replace("scripts/status.py", "synq-tune status", 1)
    assert invocation.as_called("\npython scripts/bench.py step") == "\nsynq-tune bench step"


def test_a_recorded_call_names_no_folder_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is of whoever called, so that another can type it."""
    monkeypatch.setattr(invocation, "_PROGRAM", [])
    recorded = invocation.recorded_command_line("compare.py", ["--set", "a=b c"])
    assert recorded == "python scripts/compare.py --set 'a=b c'"
    monkeypatch.setattr(invocation, "_PROGRAM", ["/home/x/env/bin/synq-tune"])
    recorded = invocation.recorded_command_line("compare.py", ["--seeds", "5"])
    assert recorded == "synq-tune compare --seeds 5"


@pytest.mark.parametrize("is_activated", [False, True])
def test_a_program_of_this_environment_is_found(
    is_activated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name in an activated environment, by its path in a clean shell."""
    ours = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", f"{ours}:/usr/bin:/bin" if is_activated else "/usr/bin:/bin")
    words = invocation.program("pytest")
    assert words == (["pytest"] if is_activated else [f"{ours}/pytest"])
    subprocess.run([*words, "--version"], check=True, capture_output=True)


def test_a_program_that_is_only_a_module_runs_as_one() -> None:
    """`python -m`, with this interpreter."""
    assert invocation.program("no_such_program")[1:] == ["-m", "no_such_program"]
