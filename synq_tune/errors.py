"""The errors a user can act on, and the one way an unknown name is reported."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """The user's input is wrong; commands print it as one line and exit with 2."""


class SearchSpaceError(InputError):
    """A space, a recipe or a `--set` does not describe a valid study."""


class NonFiniteLossError(RuntimeError):
    """A training loss became NaN or infinite; the trial ends as `diverged`."""


def lookup(kind: str, name: str, known: Iterable[str]) -> str:
    """Return `name` if it is known, else raise `InputError` with the nearest known name."""
    known = sorted(known)
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise InputError(f"Unknown {kind} {name!r}. Available: {', '.join(known)}.{hint}")
