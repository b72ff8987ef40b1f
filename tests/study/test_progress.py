"""How long earlier drivers worked on a study."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from synq_tune.study.progress import seconds_spent


def _ledger(sessions: list[tuple[str, float]], runs: list[tuple[float, float | None]]) -> Any:
    state = SimpleNamespace(
        sessions=[{"action": action, "at": at} for action, at in sessions],
        runs={
            str(number): SimpleNamespace(started_at=start, finished_at=end)
            for number, (start, end) in enumerate(runs)
        },
    )
    return SimpleNamespace(state=state)


@pytest.mark.parametrize(
    ("sessions", "runs", "expected"),
    [
        ([("started", 100)], [(110, 120)], 0),  # the present session has a clock of its own
        ([("started", 100), ("finished", 160), ("started", 900)], [], 60),
        ([("started", 100), ("started", 900)], [(110, 150), (150, None)], 50),  # it was killed
        ([("started", 100), ("started", 900)], [], 0),
        ([("started", 100), ("started", 40), ("started", 70)], [], 0),  # the clock was set back
        ([("started", 100), ("started", 40), ("started", 70)], [(50, 60)], 20),
    ],
)
def test_what_earlier_sessions_show_counts(
    sessions: list[tuple[str, float]], runs: list[tuple[float, float | None]], expected: float
) -> None:
    """From each start to the last event before the next one; nothing in between, nor backwards."""
    assert seconds_spent(_ledger(sessions, runs)) == expected
