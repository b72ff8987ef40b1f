"""What a study says about why its best is the best."""

from __future__ import annotations

import pytest

from synq_tune.config.load import load_space
from synq_tune.study.state import StudyState
from synq_tune.study.why import why_line
from tests.study.test_summary import add


@pytest.fixture
def state() -> StudyState:
    return StudyState(load_space("digits_w3a3"), {})


def test_no_best_no_reason(state: StudyState) -> None:
    """Nothing completed."""
    add(state, 0, "diverged")
    assert why_line(state) is None


def test_one_trial_has_no_rival(state: StudyState) -> None:
    """A sentence all the same."""
    add(state, 0, top1=95.0)
    assert why_line(state) == "trial 0: the only one that completed"


def test_the_higher_value_decides(state: StudyState) -> None:
    """Before anything is repeated, single runs compare."""
    add(state, 0, top1=95.0, holdout_kl=0.1)
    add(state, 1, top1=96.5, holdout_kl=0.3)
    assert why_line(state) == "trial 1 before trial 0: the higher top1, 96.50 against 95.00"


def test_a_tie_names_what_broke_it(state: StudyState) -> None:
    """Equal means: the divergence on held-out images."""
    for number, kl in ((4, 0.3), (7, 0.2)):
        add(state, number, top1=99.0, holdout_kl=kl)
        add(state, number, kind="confirm", repeat=1, top1=98.0, holdout_kl=kl)
    assert why_line(state) == (
        "trial 7 before trial 4: equal mean of top1 over 2 seeds, 98.50; "
        "the lower holdout_kl, 0.2000 against 0.3000"
    )


def test_a_full_tie_goes_to_the_earlier(state: StudyState) -> None:
    """And it says so."""
    for number in (0, 1):
        add(state, number, top1=99.0, holdout_kl=0.2)
    assert why_line(state) == "trial 0 before trial 1: equal top1, 99.00; it was proposed first"


def test_a_failed_seed_decides(state: StudyState) -> None:
    """Whoever gives no value under one seed comes second, however good its other runs are."""
    for number, end, top1 in ((0, "diverged", 99.0), (1, "completed", 90.0)):
        add(state, number, top1=top1)
        add(
            state,
            number,
            end,
            kind="confirm",
            repeat=1,
            **({} if end == "diverged" else {"top1": top1}),
        )
    assert why_line(state) == (
        "trial 1 before trial 0: fewer seeds without a value, 0 of 2 against 1 of 2"
    )
