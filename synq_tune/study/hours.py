"""How long a study has been worked on."""

from __future__ import annotations

from synq_tune.study.ledger import Ledger


def seconds_spent(ledger: Ledger) -> float:
    """Seconds earlier drivers worked on the study, as far as the ledger shows."""
    starts = [s["at"] for s in ledger.state.sessions if s["action"] == "started"]
    times = [s["at"] for s in ledger.state.sessions]
    for run in ledger.state.runs.values():
        times += [t for t in (run.started_at, run.finished_at) if t is not None]
    # The last session that started is this one: it counts by its own clock.
    # A clock that was set back between two sessions leaves no time in between.
    ends = [
        max([t for t in times if a <= t < b], default=a)
        for a, b in zip(starts, starts[1:], strict=False)
    ]
    return sum(end - start for start, end in zip(starts, ends, strict=False))
