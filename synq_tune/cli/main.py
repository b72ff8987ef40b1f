"""The program `synq-tune`: each command a subcommand, as `python -m synq_tune` has them too."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from synq_tune import __version__
from synq_tune.cli.completion import complete
from synq_tune.commands.ending import exit_code
from synq_tune.errors import InputError, lookup
from synq_tune.process import invocation

COMMANDS = {
    "search": "search the hyperparameters of a study",
    "spaces": "list the bundled spaces",
    "inspect": "what of a network will be quantized, layer by layer",
    "allocate": "how many bits each layer gets under a budget",
    "synthesize": "make a study's synthetic dataset alone",
    "finetune": "run one trial without Ray",
    "status": "show a study",
    "report": "write a study's page, to look at in a browser",
    "doctor": "check a study, and mend what can be mended",
    "export": "write a trial's model again, or in another format",
    "evaluate": "measure a model file on labelled images",
    "runtimes": "which runtime runs which file, and how exactly",
    "clean": "delete what no study needs from the store",
    "compare": "compare variants of a space with paired seeds",
    "reproduce": "run a table or a figure of the paper, row by row",
    "choosing": "what choosing without labels costs",
    "regret": "how far searches end from the best of a recorded grid",
    "coverage": "take networks through the whole chain",
    "bench": "measure speed and memory",
    "gpu_check": "check and time everything on a GPU",
}
"""Command → what it does; its arguments are in `synq_tune.cli.COMMAND`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name; returns its exit code.

    Raises:
        InputError: there is no such command.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    if words[0] in ("--version", "-V"):
        print(f"synq-tune {__version__}")
        return 0
    if words[0].startswith("-"):
        raise InputError(
            f"`the first word is a command` must hold, but got {words[0]}. Try --help."
        )
    command = lookup("command", words[0], COMMANDS)
    invocation.begin_command(command)
    return importlib.import_module(f"synq_tune.cli.{command}").main(words[1:])


def _usage() -> str:
    width = max(map(len, COMMANDS))
    rows = (f"  {name:<{width}}  {what}" for name, what in COMMANDS.items())
    return "\n".join(
        ["usage: synq-tune COMMAND …", "", *rows, "", "synq-tune COMMAND --help says more."]
    )


def run() -> None:
    """The program's entry point."""
    complete(COMMANDS)
    invocation.remember_program(sys.argv[0])
    sys.exit(exit_code(main))
