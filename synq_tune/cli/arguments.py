"""The arguments that commands share: one spelling, one help text."""

from __future__ import annotations

import argparse
from typing import Any

from synq_tune.process.invocation import as_called

SOURCES = "DIR, FILE.zip, cifar10:DIR, cifar100:DIR, imagenet:DIR, npy:DIR, digits"
"""Where labelled images come from."""

_SHARED: dict[str, dict[str, Any]] = {
    "--space": {"metavar": "NAME|FILE", "help": "a bundled space, or a file"},
    "--weights": {"metavar": "FILE", "help": "the teacher's checkpoint; default: the space's"},
    "--val-data": {
        "metavar": "SRC",
        "help": f"labelled images: {SOURCES}; default: the space's",
    },
    "--set": {
        "metavar": "KEY.PATH=VALUE",
        "action": "append",
        "default": [],
        "dest": "sets",
        "help": "change a setting; the value is YAML; repeatable; default: nothing",
    },
    "--from": {
        "metavar": "NAME|FILE",
        "dest": "start",
        "help": "start from the best-known settings of search_spaces/best/; default: the space's own",
    },
    "--seed": {"type": int, "metavar": "N", "help": "sets study.seed; default: the space's"},
    "--store": {
        "metavar": "DIR",
        "help": "datasets and downloads, shared by all studies; default: ~/.cache/synq_tune",
    },
}


_NOTHING = (None, False, [], argparse.SUPPRESS)
"""Defaults that say nothing of themselves."""


class CommandHelp(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the description's lines, and adds defaults that are values and not said already."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        is_said = "default" in text or action.default in _NOTHING
        return text if is_said else f"{text} (default: %(default)s)"


def command_parser(doc: str | None) -> argparse.ArgumentParser:
    """A command's parser; `doc` describes it, with its examples as this process was called."""
    return argparse.ArgumentParser(description=as_called(doc or ""), formatter_class=CommandHelp)


def add_shared(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup,
    *names: str,
    required: tuple[str, ...] = (),
    meaning: str | None = None,
) -> None:
    """Add shared arguments, such as `--space`, in this order.

    Args:
        required: those of `names` that must be given.
        meaning: what they do in this command, where that is not what they do in the others.
    """
    for name in names:
        is_required = {"required": True} if name in required else {}
        is_other = {"help": meaning} if meaning is not None else {}
        parser.add_argument(name, **{**_SHARED[name], **is_required, **is_other})


def flags_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `--weights`, `--val-data` and `--seed` say, as `load_space` takes its flags."""
    given = vars(arguments)
    study = {"val_data": given.get("val_data"), "seed": given.get("seed")}
    return {"teacher": {"weights": {"file": given.get("weights")}}, "study": study}
