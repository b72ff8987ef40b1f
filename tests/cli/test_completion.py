"""The shell completes what the program takes."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from synq_tune.cli.completion import complete, program_parser
from synq_tune.cli.main import COMMANDS


def _offered(line: str, tmp_path: Path) -> list[str]:
    """What is offered at the end of a line."""
    pytest.importorskip("argcomplete")
    file = tmp_path / "offered"
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "COMP_LINE": line, "COMP_TYPE": "9"}
    asked |= {"COMP_POINT": str(len(line)), "_ARGCOMPLETE_STDOUT_FILENAME": str(file)}
    code = "from synq_tune.cli.main import run; run()"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **asked}, check=False)
    return [word.strip() for word in file.read_text().splitlines()]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("synq-tune se", ["search"]),
        ("synq-tune export --for", ["--format"]),
        ("synq-tune export --format pa", ["packed"]),
        ("synq-tune search --space digits_w3", ["digits_w3a3"]),
        ("synq-tune spaces resnet18_w4", ["resnet18_w4a4", "resnet18_w4a8"]),
        ("synq-tune finetune --from digits_v", ["digits_vit_w4a8"]),
    ],
)
def test_what_was_begun_is_completed(line: str, words: list[str], tmp_path: Path) -> None:
    """Commands, options, choices, and the names of spaces and best-known settings."""
    assert _offered(line, tmp_path) == words


def test_nothing_happens_where_no_shell_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program is not slowed by what it does not need."""
    monkeypatch.delenv("_ARGCOMPLETE", raising=False)
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    complete(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_its_own_arguments_in_the_program(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Groups and exclusive options fit into the program's parser, and help stands there once."""
    with pytest.raises(SystemExit):
        program_parser(COMMANDS, [command]).parse_args([command, "--help"])
    said = capsys.readouterr().out
    own = importlib.import_module(f"synq_tune.cli.{command}").parser()
    assert said.startswith(f"usage: synq-tune {command} ")
    assert all(word in said for action in own._actions for word in action.option_strings)
