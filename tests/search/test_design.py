"""A study's first trials differ: no two of them share more than half of their values, where that can be."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import Any

import pytest

from synq_tune.config import Domain
from synq_tune.config.load import load_space
from synq_tune.search.design import at, spread
from synq_tune.search.sampler import Sampler
from synq_tune.study.state import Run, StudyState

Params = dict[str, Any]


def _shared(a: Params, b: Params) -> int:
    return sum(a[key] == b[key] for key in a)


def _most_shared(found: list[Params]) -> int:
    return max((_shared(a, b) for a, b in itertools.combinations(found, 2)), default=0)


def _choices(sizes: list[int]) -> dict[str, Domain]:
    return {f"k{i}": Domain(choice=tuple(range(size))) for i, size in enumerate(sizes)}


def _search(space: str, num_trials: int, seed: int, *sets: str) -> list[Params]:
    """What a study proposes whose every trial ends with the same value."""
    fields = [f"study.num_trials={num_trials}", f"study.seed={seed}", *sets]
    spec = load_space(space, fields)
    sampler, state = Sampler(spec, lambda run: run.metrics.get("top1")), StudyState(spec, {})
    for number in range(num_trials):
        params = sampler.propose(state)
        assert params is not None
        key, metrics = f"trial-{number:04d}", {"top1": 90.0}
        state.runs[key] = Run(key, "search", number, params, 0, state="completed", metrics=metrics)
    return [run.params for run in state.runs.values()]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("space", ["digits_w3a3", "resnet18_w3a3", "deit_tiny_w4a8"])
def test_five_trials_of_six_keys_share_at_most_half(space: str, seed: int) -> None:
    """Of the six keys that the spaces search, no two of a study's five trials agree in more than three."""
    assert _most_shared(_search(space, 5, seed)) <= 3


def test_the_first_ones_stay_away_from_configurations_tried_first() -> None:
    """The best-known configuration is not repeated with one value changed."""
    first = (
        "study.first=[{lr: 0.01, tau: 0.5, d0: 4, lambda_ce: 0.005, lambda_cam: 20, cam: gradcam}]"
    )
    for seed in range(5):
        assert _most_shared(_search("digits_w3a3", 5, seed, first)) <= 3


@pytest.mark.parametrize("seed", range(30))
def test_any_grid_that_allows_it(seed: int) -> None:
    """Random grids of three to eight keys of three to seven values, three to ten configurations."""
    generator = random.Random(seed)
    domains = _choices([generator.randint(3, 7) for _ in range(generator.randint(3, 8))])
    count = generator.randint(3, 10 if len(domains) > 4 else 5)
    found = spread(domains, count, seed)
    assert _most_shared(found) <= len(domains) / 2
    assert spread(domains, count, seed) == found


def test_a_tight_grid_is_used_to_its_limit() -> None:
    """Of three binary keys there are four configurations of which no two share two values."""
    assert all(_most_shared(spread(_choices([2, 2, 2]), 4, seed)) == 1 for seed in range(20))


@pytest.mark.parametrize("size", [2, 3, 5, 10])
def test_every_value_is_taken_about_equally_often(size: int) -> None:
    """Ten configurations take each of a key's values as often as can be, but for one."""
    counts = Counter(p["k0"] for p in spread(_choices([size, 4, 4]), 10, 1))
    assert len(counts) == size and max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize(
    "domain",
    [
        Domain(float=(1e-4, 1e-1), log=True), Domain(float=(-1.0, 1.0)), Domain(int=(1, 8)),
        Domain(int=(1, 300), log=True), Domain(choice=("a", None, True)), Domain(float=(2.0, 2.5)),
    ],
)  # fmt: skip
def test_shares_of_any_domain_are_its_values(domain: Domain) -> None:
    """From its first value to its last, in order, and nothing outside."""
    found = [at(domain, share / 1000) for share in range(1000)]
    assert all(domain.contains(value) for value in found)
    if domain.choice is None:
        assert found == sorted(found)
        assert found[0] == pytest.approx(domain.values[0], rel=0.01)
        assert found[-1] == pytest.approx(domain.values[1], rel=0.02)


def test_nothing_searched_is_one_configuration() -> None:
    """A space without search has the empty configuration."""
    assert spread({}, 1, 0) == [{}]


def test_a_long_study_is_spread_by_one_draw() -> None:
    """Thousands of first trials are not compared pair by pair, and take every value equally often."""
    domains = {"lr": Domain(choice=(1, 2, 3, 4)), "tau": Domain(choice=("a", "b"))}
    counts = Counter(params["lr"] for params in spread(domains, 4000, 0))
    assert set(counts.values()) == {1000}
