"""The program `synq-tune`: every command, from any folder."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from synq_tune import __version__
from synq_tune.cli.main import COMMANDS, main
from synq_tune.config.load import SPACES_DIR, load_space
from synq_tune.errors import InputError
from synq_tune.process import invocation

ROOT = Path(__file__).parents[2]


def test_every_command_stands_in_the_table() -> None:
    """A file of arguments is a command, and every command has one; scripts are the same commands."""
    files = {p.stem for p in (ROOT / "synq_tune" / "cli").glob("*.py")}
    assert files - {"__init__", "main", "arguments", "completion"} == COMMANDS.keys()
    scripts = {p.stem for p in (ROOT / "scripts").glob("*.py")}
    assert scripts - {"train_digits_teacher"} == COMMANDS.keys() - {"spaces"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_the_command_and_loads_nothing_heavy(command: str) -> None:
    """`synq-tune COMMAND --help` needs neither torch nor Ray."""
    code = (
        "import sys; from synq_tune.cli.main import main\n"
        f"try: main([{command!r}, '--help'])\n"
        "except SystemExit as end: print(end.code)\n"
        "print([m for m in ('torch', 'ray', 'optuna', 'mlflow') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith(f"usage: synq-tune {command} ")
    assert run.stdout.endswith("0\n[]\n")


def test_version_and_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` is the package's; without a command the list of commands is shown."""
    assert main(["--version"]) == 0 and main([]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"synq-tune {__version__}\nusage: synq-tune COMMAND")
    assert all(f"  {name} " in said for name in COMMANDS)


def test_spaces_lists_every_bundled_space(capsys: pytest.CaptureFixture[str]) -> None:
    """Name, model, quantizer, bits, cost and whether it was measured, in 124 columns."""
    assert main(["spaces"]) == 0
    lines = capsys.readouterr().out.splitlines()
    heads, *rows = [line.split() for line in lines]
    assert max(map(len, lines)) <= 124
    assert [row[0] for row in rows] == sorted(p.stem for p in SPACES_DIR.glob("*.yaml"))
    # 15 runs of 24 epochs of 512 images in batches of 128.
    assert ["digits_w3a3", "digits_resnet26", "minmax", "W3A3", "768", "1,440", "yes"] in rows
    assert {row[0]: row[-1] for row in rows}["resnet50_w4a4"] == "never"
    assert heads[-3:] == ["images", "updates", "measured"]


def test_a_space_is_shown_with_its_purpose_and_weights(capsys: pytest.CaptureFixture[str]) -> None:
    """What its file says first, where its weights are, and that nobody has run it."""
    assert main(["spaces", "resnet18_w4a4"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("The paper's ResNet-18 on ImageNet at 4 bits")
    weights = load_space("resnet18_w4a4").teacher.weights
    assert f"{weights.url} (sha1 {weights.sha1})" in said and "never run here" in said
    with pytest.raises(InputError, match="resnet18_w4a4"):
        main(["spaces", "resnet18_w4a"])


@pytest.mark.parametrize("words", [["serch"], ["--space", "digits_w3a3"]])
def test_what_is_no_command_is_one_line(words: list[str]) -> None:
    """A misspelt command, or none before the arguments."""
    with pytest.raises(InputError, match="search|--help"):
        main(words)


def test_printed_commands_are_those_of_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is to be typed next works where it is printed: as `synq-tune`, by path, or with -m."""
    monkeypatch.setattr(invocation, "_PROGRAM", [])
    program = tmp_path / "synq-tune"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    invocation.remember_program(str(program))
    assert invocation.command_line("status.py", "a b") == f"{program} status 'a b'"
    monkeypatch.setenv("PATH", str(tmp_path))
    invocation.remember_program(str(program))
    assert invocation.command_line("status.py", "a") == "synq-tune status a"
    invocation.remember_program("/x/synq_tune/__main__.py")
    assert invocation.command_line("status.py", "a").endswith("-m synq_tune status a")


def test_the_module_is_the_program(tmp_path: Path) -> None:
    """`python -m synq_tune` from another folder, with a wrong folder: one line and exit code 2."""
    run = subprocess.run(
        [sys.executable, "-m", "synq_tune", "status", "nowhere"],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 2 and run.stderr.startswith("error: `the folder holds a study`")
    assert len(run.stderr.splitlines()) == 1
    assert run.stderr.endswith("-m synq_tune search printed.\n")


def _program(folder: Path, code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """`python -m synq_tune` in `folder`, after `code` has run."""
    start = (
        f"{code}\nimport runpy; runpy.run_module('synq_tune', run_name='__main__', alter_sys=True)"
    )
    return subprocess.run(
        [sys.executable, "-c", start, *words], cwd=folder, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(ROOT), "HOME": str(folder), "TMPDIR": str(folder)},
    )  # fmt: skip


def test_help_shows_the_program_as_it_was_called(tmp_path: Path) -> None:
    """Examples can be typed as they stand, whether of a script or of the program."""
    said = _program(tmp_path, "", "search", "--help").stdout
    assert "-m synq_tune search --space digits_w3a3" in said and "scripts/" not in said
    script = [sys.executable, str(ROOT / "scripts/search.py"), "--help"]
    said = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    assert "\npython scripts/search.py --space digits_w3a3" in said


def test_an_error_names_the_command(tmp_path: Path) -> None:
    """Not the file in which all commands begin."""
    fault = "import synq_tune.cli.status as s\ndef f(argv): raise OSError('gone')\ns.main = f"
    run = _program(tmp_path, fault, "status", "x")
    assert run.returncode == 2 and run.stderr.startswith("error: status: OSError: gone."), run


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("synthesize", "interrupted; go on with: "),  # given again, it goes on
        ("status", "interrupted\n"),
        ("search", ""),  # says it itself, with the study's folder
    ],
)
def test_an_interrupted_command_says_once_how_to_go_on(
    tmp_path: Path, command: str, line: str
) -> None:
    """The program says what the script says."""
    fault = (
        f"import os, signal, time, synq_tune.cli.{command} as c\n"
        "def f(argv): os.kill(os.getpid(), signal.SIGINT); time.sleep(30)\n"
        "c.main = f"
    )
    run = _program(tmp_path, fault, command)
    assert run.returncode == 130
    said = [text for text in run.stderr.splitlines() if text.startswith("interrupted")]
    assert run.stderr.startswith(line) and len(said) == bool(line), run.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_defaults_and_an_example(command: str) -> None:
    """Whoever may leave an argument out reads what holds then; a flag is off."""
    made = importlib.import_module(f"synq_tune.cli.{command}").parser()
    shown = made.format_help()
    for action in made._actions:
        assert action.help, action
        may_be_left_out = not action.required and action.nargs != 0 and action.nargs != "*"
        help_text = made._get_formatter()._get_help_string(action)
        is_exclusive = any(action in g._group_actions for g in made._mutually_exclusive_groups)
        is_shown = "default" in help_text or is_exclusive
        # Of --space and --resume, and of --record's own, the command says which it needs.
        assert is_shown or not may_be_left_out or action.dest == "space", action
    example = rf"^(python scripts/{command}\.py|synq-tune {command})\b"
    assert re.search(example, shown, flags=re.MULTILINE)
