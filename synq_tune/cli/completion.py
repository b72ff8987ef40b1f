"""What the shell completes: commands, their options, and names of spaces (argcomplete)."""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Mapping


def complete(commands: Mapping[str, str]) -> None:
    """Answer the shell where it asks, and end; do nothing where it does not.

    Args:
        commands: command → what it does.
    """
    if "_ARGCOMPLETE" not in os.environ:
        return
    import argcomplete

    words = os.environ.get("COMP_LINE", "").split()
    argcomplete.autocomplete(program_parser(commands, words[1:2]))


def program_parser(commands: Mapping[str, str], wanted: list[str]) -> argparse.ArgumentParser:
    """The program's parser, with the arguments of the commands in `wanted` alone: fast."""
    made = argparse.ArgumentParser("synq-tune")
    added = made.add_subparsers()
    for name, what in commands.items():
        own = [_with_names(name)] if name in wanted else []
        added.add_parser(name, parents=own, help=what, add_help=not own)
    return made


def _with_names(command: str) -> argparse.ArgumentParser:
    """A command's parser whose options know the names that they take."""
    from synq_tune.config.best_known import BEST_DIR
    from synq_tune.config.load import SPACES_DIR, names_in

    made = importlib.import_module(f"synq_tune.cli.{command}").parser()
    known = {"space": names_in(SPACES_DIR), "start": names_in(BEST_DIR)}
    for action in made._actions:
        if action.dest in known:
            action.completer = _Names(known[action.dest])
    return made


class _Names:
    """What argcomplete asks for the words that may stand here."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def __call__(self, **_: object) -> list[str]:
        return self.names
