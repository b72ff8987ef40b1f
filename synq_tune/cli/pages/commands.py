"""`docs/commands.md`: every command of `synq-tune`, from its own parser."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Iterator

from synq_tune.cli.arguments import CommandHelp
from synq_tune.cli.main import COMMANDS
from synq_tune.cli.pages.note import head
from synq_tune.text_table import markdown

_MEANING = """\
In a checkout `python scripts/COMMAND.py` is the same as `synq-tune COMMAND`; `spaces` has no script. Values
in capitals are yours.

bash and zsh complete commands, options and names of spaces after
`eval "$(register-python-argcomplete synq-tune)"`.

Exit codes: 0 done · 1 a fault of synq-tune · 2 the input is wrong, in one line · 3 no trial finished · 4 done
but for the upload to MLflow · 130 interrupted, and can go on.
"""


def commands_page() -> str:
    """The page's text."""
    parts = [line for name in COMMANDS for line in _command(name)]
    source = "the parsers in synq_tune/cli/"
    listed = markdown(("command", "what it does"), _contents())
    return "\n".join([*head("Commands", source), _MEANING, *listed, "", *parts])


def _contents() -> Iterator[tuple[str, str]]:
    for name, what in COMMANDS.items():
        yield f"[`{name}`](#{name})", what


def _command(name: str) -> Iterator[str]:
    made = importlib.import_module(f"synq_tune.cli.{name}").parser()
    made.prog = f"synq-tune {name}"
    yield from (f"## {name}", "")
    yield from _description(made)
    yield from ("```text", _usage(made), "```", "")
    options = [action for action in made._actions if action.dest != "help"]
    yield from markdown(("option", "what it does"), (_option(made, one) for one in options))
    yield ""


def _description(made: argparse.ArgumentParser) -> Iterator[str]:
    """Its paragraphs; examples as code, of the program and not of a script."""
    for part in str(made.description).strip().split("\n\n"):
        text = re.sub(r"python scripts/(\w+)\.py", r"synq-tune \1", part)
        is_code = text.startswith("synq-tune ")
        yield from ("```sh", text, "```", "") if is_code else (" ".join(text.split("\n")), "")


def _usage(made: argparse.ArgumentParser) -> str:
    """What has to be given; argparse's own line differs between versions of Python."""
    one_of = [group for group in made._mutually_exclusive_groups if group.required]
    together = [" | ".join(map(_words, group._group_actions)) for group in one_of]
    needed = [_words(a) for a in made._actions if a.required and a.option_strings]
    places = [_place(a) for a in made._actions if not a.option_strings]
    choices = [f"({text})" for text in together]
    is_left = any(not a.required and a.dest != "help" and a.option_strings for a in made._actions)
    return " ".join([made.prog, *needed, *choices, *places, *(["[OPTION …]"] * is_left)])


def _place(action: argparse.Action) -> str:
    text = _words(action)
    return {"?": f"[{text}]", "*": f"[{text} …]", "+": f"{text} …"}.get(str(action.nargs), text)


def _words(action: argparse.Action) -> str:
    """An argument as it is typed."""
    if action.nargs == 0:
        return action.option_strings[-1]
    value = action.metavar or "{" + ",".join(map(str, action.choices or ())) + "}"
    return " ".join([*action.option_strings, str(value)])


def _option(made: argparse.ArgumentParser, action: argparse.Action) -> tuple[str, str]:
    text = CommandHelp(made.prog)._expand_help(action)
    return f"`{_words(action)}`", f"{text}; needed" if _is_needed(action) else text


def _is_needed(action: argparse.Action) -> bool:
    return action.required and bool(action.option_strings)
