"""When the summary is rewritten."""

from __future__ import annotations

import json

import pytest

from synq_tune.study import summary_writer
from synq_tune.study.ledger import Ledger
from synq_tune.study.summary import SUMMARY_NAME, write_summary
from synq_tune.study.summary_writer import SummaryWriter


class Watch:
    """A clock that only moves when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Each writing takes one second."""
    watch = Watch()

    def slowly(*arguments: object) -> None:
        watch.now += 1
        write_summary(*arguments)

    monkeypatch.setattr(summary_writer, "write_summary", slowly)
    return watch


def _propose(ledger: Ledger, number: int) -> None:
    ledger.append(
        "proposed", key=f"trial-{number:04d}", kind="search", number=number,
        params={"lr": 0.01 + number}, seed=number, label="",
    )  # fmt: skip


def _shown(ledger: Ledger) -> int:
    return len(json.loads((ledger.folder / SUMMARY_NAME).read_text())["trials"])


def test_rare_transitions_are_all_shown(ledger: Ledger, watch: Watch) -> None:
    """Twenty times a writing's duration after it, the next transition is written."""
    writer = SummaryWriter(ledger.folder, watch)
    for number in range(3):
        _propose(ledger, number)
        writer.transition(ledger.state)
        assert _shown(ledger) == number + 1
        watch.now += 19


def test_quick_transitions_take_a_twentieth_of_the_time(ledger: Ledger, watch: Watch) -> None:
    """A thousand transitions, ten a second, are written five times in their hundred seconds."""
    writer, started = SummaryWriter(ledger.folder, watch), watch.now
    _propose(ledger, 0)
    spent = 0.0
    while watch.now - started < 100:
        before = watch.now
        writer.transition(ledger.state)
        spent += watch.now - before
        watch.now += 0.1
    assert spent == pytest.approx(5)


def test_the_last_word_is_written_at_once(ledger: Ledger, watch: Watch) -> None:
    """`write` does not wait, so that a study that ends is shown as it ended."""
    writer = SummaryWriter(ledger.folder, watch)
    writer.transition(ledger.state)
    _propose(ledger, 0)
    writer.transition(ledger.state)
    assert _shown(ledger) == 0
    writer.write(ledger.state)
    assert _shown(ledger) == 1
