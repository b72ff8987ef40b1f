"""What a user should know about a choice made for them: one line each on stderr."""

from __future__ import annotations

import sys

_SAID: set[str] = set()


def say(*lines: str) -> None:
    """Print each line as `note: …` on stderr; a line appears once per process."""
    for line in lines:
        if line not in _SAID:
            _SAID.add(line)
            print(f"note: {line}", file=sys.stderr, flush=True)


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """`1 epoch`, `2 epochs`, `1,000 epochs`.

    Args:
        number: how many.
        noun: of one.
        plural: of several; by default the noun with an s.
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def printable(text: object, limit: int = 80) -> str:
    """A stranger's name or text without control characters, cut to `limit` characters."""
    plain = "".join(c if c.isprintable() else "?" for c in str(text))
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"
