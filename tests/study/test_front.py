"""Several objectives: the front, its knee, and what a study says of both."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import optuna
import pytest

from synq_tune.config.load import load_space
from synq_tune.study.front import knee, non_dominated
from synq_tune.study.ledger import Ledger
from synq_tune.study.state import StudyState
from synq_tune.study.status import format_status
from synq_tune.study.summary import best_bits, best_run, finalists, front, summarize
from synq_tune.study.why import why_line
from tests.study.test_why import add as _add

SETS = ["study.objectives=[top1, size]", "search.bits.weights={choice: [2, 3, 4, 8]}"]


@pytest.fixture
def state() -> StudyState:
    return StudyState(load_space("digits_w3a3", SETS), {})


def add(state: StudyState, number: int, bits: int, top1: float, how: str = "completed", **more):
    """A trial or a repeat of so many bits; its size is 1,000 bytes a bit."""
    _add(state, number, how, top1=top1, size=1000.0 * bits, bops=1e6 * bits, **more)
    for run in state.runs.values():
        if run.number == number:
            run.params = {"lr": 0.01, "bits.weights": bits}


def _numbers(state: StudyState) -> list[int | None]:
    return [point.run.number for point in front(state)]


def test_nobody_beats_a_point_of_the_front() -> None:
    """Against the definition, pair by pair, on grids full of ties; and against Optuna's own."""
    draw = random.Random(3)
    for dimensions in (2, 3):
        points = [tuple(draw.randint(0, 6) for _ in range(dimensions)) for _ in range(80)]
        kept = non_dominated(points)

        def beaten(point, points=points):
            return any(
                other != point and all(a >= b for a, b in zip(other, point, strict=True))
                for other in points
            )

        assert {points[n] for n in kept} == {p for p in points if not beaten(p)}
        assert kept == [points.index(points[n]) for n in kept] == sorted(kept)
        study = optuna.create_study(directions=["maximize"] * dimensions)
        for point in points:
            study.add_trial(optuna.create_trial(values=point))
        assert {tuple(t.values) for t in study.best_trials} == {points[n] for n in kept}


def test_the_knee_is_farthest_from_the_chord() -> None:
    """By the distance formula, whatever the units; one and two points have a rule of their own."""
    points = [(98.0, -8000.0), (97.0, -4000.0), (95.0, -3000.0), (20.0, -2000.0)]
    (x0, y0), (x1, y1) = points[0], points[-1]

    def distance(point: tuple[float, float]) -> float:
        x, y = ((point[0] - x1) / (x0 - x1), (point[1] - y0) / (y1 - y0))
        return (x + y - 1) / 2**0.5

    expected = max(range(4), key=lambda n: distance(points[n]))
    assert knee(points) == expected == 2
    assert knee([(a, b / 1e6) for a, b in points]) == 2
    assert knee([(50.0, -1.0)]) == 0
    assert knee([(50.0, -1.0), (90.0, -7.0)]) == 1
    # Between ends that tie, a point below the chord is none.
    assert knee([(100.0, 0.0), (10.0, 10.0), (0.0, 100.0)]) == 0
    assert knee([(1.0, 5.0), (1.0, 5.0)]) == 0


def test_the_knee_is_the_best(state: StudyState) -> None:
    """Dominated, stopped and unfinished trials are on no front."""
    for number, (bits, top1) in enumerate([(8, 98.0), (3, 95.0), (4, 97.0), (2, 20.0), (4, 96.0)]):
        add(state, number, bits, top1)
    add(state, 5, 2, 99.0, "stopped")
    assert _numbers(state) == [0, 2, 1, 3]
    assert best_run(state).number == 1
    assert best_bits(state).weights == 3
    assert why_line(state).startswith("trial 1: the knee of 4 points of top1 and size")
    rows = summarize(state, Path("x"))["front"]
    assert [row["number"] for row in rows if row["is_knee"]] == [1]
    assert rows[0]["values"] == {"top1": 98.0, "size": 8000.0}
    # A front that is hollow, one of one point, and one of two.
    hollow = StudyState(state.spec, {})
    for number, (bits, top1) in enumerate([(2, 20.0), (6, 30.0), (8, 98.0)]):
        add(hollow, number, bits, top1)
    assert best_run(hollow).number == 2
    assert why_line(hollow) == (
        "trial 2: the best top1 of 3 points of top1 and size, of which none lies beyond the line "
        "between the ends"
    )
    for numbers, best, why in (([3], 3, "the only point"), ([1, 3], 1, "the better top1")):
        some = StudyState(state.spec, {})
        for number in numbers:
            add(some, number, *((3, 95.0) if number == 1 else (2, 20.0)))
        assert best_run(some).number == best and why in why_line(some)


def test_equal_points_are_the_earlier(state: StudyState) -> None:
    """What a mean of the same images rounds to does not matter."""
    add(state, 0, 4, 97.00000000001)
    add(state, 1, 4, 97.0)
    assert _numbers(state) == [0]


def test_a_study_without_a_point(state: StudyState) -> None:
    """No best, and no table."""
    add(state, 0, 4, 97.0, "diverged")
    assert front(state) == [] and best_run(state) is None and why_line(state) is None
    assert summarize(state, Path("x"))["front"] == []


def test_all_points_are_repeated_and_compared_by_their_means(state: StudyState) -> None:
    """However many `confirm.top` says; until the last repeat is over single runs count."""
    for number, (bits, top1) in enumerate([(8, 98.0), (4, 97.9), (3, 97.8), (2, 20.0)]):
        add(state, number, bits, top1)
    assert [run.number for run in finalists(state, 1)] == [0, 1, 2, 3]
    assert best_run(state).number == 2
    for number, bits, top1 in ((0, 8, 98.0), (1, 4, 98.3), (2, 3, 10.0)):
        add(state, number, bits, top1, kind="confirm", repeat=1)
    assert [point.seeds for point in front(state)] == [1, 1, 1, 1]
    add(state, 3, 2, 22.0, kind="confirm", repeat=1)
    # 98.0 at 8 bits is beaten now by 98.1 at 4.
    assert _numbers(state) == [1, 2, 3]
    assert front(state)[0].values["top1"] == pytest.approx(98.1)
    assert {point.seeds for point in front(state)} == {2}
    assert best_run(state).number == 1


def test_who_fails_under_a_seed_leaves_the_front(state: StudyState) -> None:
    """Unless all fail as often."""
    for number, (bits, top1) in enumerate([(8, 98.0), (3, 97.8), (2, 20.0)]):
        add(state, number, bits, top1)
    for number, how in enumerate(("completed", "diverged", "completed")):
        bits = (8, 3, 2)[number]
        add(state, number, bits, (98.0, 0.0, 20.0)[number], how, kind="confirm", repeat=1)
    assert _numbers(state) == [0, 2]


def test_status_shows_the_front(tmp_path: Path, state: StudyState) -> None:
    """Each point with its values and widths; the exported one is marked."""
    add(state, 0, 8, 98.0)
    add(state, 1, 3, 97.0)
    add(state, 2, 2, 20.0)
    text = format_status(state, tmp_path)
    assert "top1 (higher is better), then size (lower is better)" in text
    lines = [line.split() for line in text.splitlines() if line.startswith("trial ")]
    table = [line for line in lines if line[1].isdigit()]
    assert ["trial", "1", "97.00", "3,000", "1", "W3A3", "<-", "the", "knee"] in table
    assert len(table) == 3
    plain = StudyState(load_space("digits_w3a3"), {})
    add(plain, 0, 8, 98.0)
    assert "knee" not in format_status(plain, tmp_path)


def test_order_of_the_ledger_does_not_matter(state: StudyState) -> None:
    """The same runs give the same front, whichever ended first."""
    rows = [(0, 8, 98.0), (1, 3, 95.0), (2, 4, 97.0), (3, 2, 20.0)]
    for order in itertools.permutations(rows):
        some = StudyState(state.spec, {})
        for row in order:
            add(some, *row)
        assert _numbers(some) == [0, 2, 1, 3] and best_run(some).number == 1


def test_a_ledger_from_before_has_no_front(ledger: Ledger) -> None:
    """A header without the field is a study of one objective."""
    header = dict(ledger.state.header)
    del header["spec"]["study"]["objectives"]
    spec = type(ledger.state.spec).model_validate(header["spec"])
    assert spec == ledger.state.spec and not spec.study.has_front
