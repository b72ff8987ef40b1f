"""How often a trial sends its state to the driver."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from synq_tune.config.load import load_space
from synq_tune.search import worker
from synq_tune.search.worker import KEEP_RATE, KEEP_SECONDS, TrialWorker, keep_seconds


@pytest.mark.parametrize(
    ("places", "state_bytes", "seconds"),
    [(1, 0, 60.0), (40, 140e6, 60.0), (1000, 1.1e6, 60.0), (1000, 140e6, 1400.0)],
)
def test_a_large_cluster_sends_no_more_than_a_driver_takes(
    places: int, state_bytes: int, seconds: float
) -> None:
    """A minute, until all trials together would send more than 100 MB a second."""
    assert keep_seconds(places, state_bytes) == seconds
    assert places * state_bytes / keep_seconds(places, state_bytes) <= KEEP_RATE


def test_a_worker_waits_as_long_as_its_last_state_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its size is known from the one before; a number of epochs that was asked for is kept to."""
    trial = TrialWorker.__new__(TrialWorker)
    trial.take({"key": "trial-0000"})
    trial.context = {"places": 1000}
    spec = load_space("digits_w3a3")
    trial._assets = lambda: SimpleNamespace(spec=spec)
    now = time.monotonic() + KEEP_SECONDS + 1
    monkeypatch.setattr(worker.time, "monotonic", lambda: now)
    assert trial._is_due(4)
    trial.state_bytes = 140e6
    assert not trial._is_due(4)
    now += 1400
    assert trial._is_due(4)
    now -= 1400
    spec = load_space("digits_w3a3", ["study.checkpoint_every=4"])
    assert [trial._is_due(epoch) for epoch in (3, 4)] == [False, True]
