"""The bar over iterations."""

from __future__ import annotations

import io
import sys
import time

import pytest

from synq_tune.process.progress import advance, progress_bar


class Terminal(io.StringIO):
    """Somebody is watching."""

    def isatty(self) -> bool:
        """As a terminal answers."""
        return True


@pytest.mark.parametrize(("stream", "drawn"), [(Terminal, range(4, 51)), (io.StringIO, range(3))])
def test_a_log_is_not_filled_with_bars(
    monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO], drawn: range
) -> None:
    """Half a second of work: a terminal sees it move, a file holds its beginning and its end."""
    monkeypatch.setattr(sys, "stderr", stream())
    with progress_bar(50, "images", show=True) as bar:
        for _ in range(50):
            time.sleep(0.01)
            advance(bar, 0.5)
    said = sys.stderr.getvalue()
    assert said.count("\rimages") in drawn, said
    assert "50/50" in said
