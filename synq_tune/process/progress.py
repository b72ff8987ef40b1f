"""Bars over long parts, on standard error."""

from __future__ import annotations

import sys

from tqdm import tqdm


def progress_bar(total: int | None, stage: str, show: bool = True, unit: str = "it") -> tqdm:
    """A bar over what a stage does, with the time left.

    Drawn once or twice a minute where nobody watches: a job's log keeps every one of them.

    Args:
        total: how much there is to do; None = unknown.
        stage: what it is about.
        show: whether to draw it.
        unit: what is counted.
    """
    least, most = (0.1, 10.0) if sys.stderr.isatty() else (30.0, 60.0)
    return tqdm(
        total=total,
        desc=stage,
        unit=unit,
        file=sys.stderr,
        disable=not show,
        mininterval=least,
        maxinterval=most,
    )


def advance(bar: tqdm, loss: float) -> None:
    """Show one more iteration and its loss."""
    bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
    bar.update()
