"""Bars over long parts, on standard error."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from tqdm import tqdm


def progress_bar(
    total: int | None,
    stage: str,
    show: bool = True,
    unit: str = "it",
    may_be_short: bool = False,
    done: int = 0,
    layout: str | None = None,
) -> tqdm:
    """A bar over what a stage does, with the time left.

    Drawn once or twice a minute where nobody watches: a job's log keeps every one of them.

    Args:
        total: how much there is to do; None = unknown.
        stage: what it is about.
        show: whether to draw it.
        unit: what is counted.
        may_be_short: draw nothing for what is over in a moment.
        done: how much of it is done already.
        layout: tqdm's `bar_format`; None is its own.
    """
    least, most, moment = (0.1, 10.0, 1.0) if is_watched() else (30.0, 60.0, 20.0)
    return tqdm(
        total=total,
        initial=done,
        desc=stage,
        unit=unit,
        file=_of_bars(),
        disable=not show,
        mininterval=least,
        maxinterval=most,
        delay=moment if may_be_short else 0.0,
        bar_format=layout,
        dynamic_ncols=is_watched(),
        leave=None,  # one within another goes when it is done: it would overwrite that
    )


def is_watched() -> bool:
    """Whether bars are drawn on a terminal."""
    return sys.stderr.isatty()


def advance(bar: tqdm, loss: float) -> None:
    """Show one more iteration and its loss."""
    bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
    bar.update()


@contextlib.contextmanager
def lines_above_bars() -> Iterator[None]:
    """Whatever is printed meanwhile, by whom ever, stands above the bars instead of in them."""
    before, bars = (sys.stdout, sys.stderr), _of_bars()
    sys.stdout, sys.stderr = ours = [_AboveBars(stream, bars) for stream in before]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in ours:
            stream.end()


def _of_bars() -> TextIO:
    """Where bars are drawn: standard error itself, also within `lines_above_bars`."""
    return sys.stderr.stream if isinstance(sys.stderr, _AboveBars) else sys.stderr


class _AboveBars:
    """A stream that takes the bars away for as long as it writes a line."""

    def __init__(self, stream: Any, bars: Any) -> None:
        self.stream, self._bars, self._begun = stream, bars, ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Keep what is no whole line yet."""
        lines, newline, self._begun = (self._begun + text).rpartition("\n")
        if newline:
            with tqdm.external_write_mode(file=self._bars):
                self.stream.write(lines + newline)
                self.stream.flush()
        return len(text)

    def end(self) -> None:
        """Write what never became a line, as one."""
        if self._begun:
            self.write("\n")
