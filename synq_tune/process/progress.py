"""Bars over long parts, on standard error."""

from __future__ import annotations

import sys

from tqdm import tqdm


def progress_bar(
    total: int | None,
    stage: str,
    show: bool = True,
    unit: str = "it",
    may_be_short: bool = False,
    done: int = 0,
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
    """
    is_watched = sys.stderr.isatty()
    least, most, moment = (0.1, 10.0, 1.0) if is_watched else (30.0, 60.0, 20.0)
    return tqdm(
        total=total,
        initial=done,
        desc=stage,
        unit=unit,
        file=sys.stderr,
        disable=not show,
        mininterval=least,
        maxinterval=most,
        delay=moment if may_be_short else 0.0,
    )


def advance(bar: tqdm, loss: float) -> None:
    """Show one more iteration and its loss."""
    bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
    bar.update()
