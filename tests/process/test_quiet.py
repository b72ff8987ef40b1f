"""What a library's C++ prints is kept off standard output; what comes before and after is not."""

from __future__ import annotations

import os

import pytest

from synq_tune.process.quiet import quiet_stdout


def test_only_the_block_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    """Written to the descriptor itself, as C++ does; an error inside ends the silence too."""
    print("before")
    with pytest.raises(KeyError), quiet_stdout():
        os.write(1, b"inside\n")
        raise KeyError
    os.write(1, b"after\n")
    assert capfd.readouterr().out == "before\nafter\n"
