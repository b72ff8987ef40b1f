"""How a broken promise is reported."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from synq_tune.errors import InputError


@contextlib.contextmanager
def promised(what: str) -> Iterator[None]:
    """An `InputError` within the block becomes an `AssertionError` that starts with the promise."""
    try:
        yield
    except InputError as error:
        raise AssertionError(f"{what}: {error}") from error
