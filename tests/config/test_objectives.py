"""Several objectives and searched widths: what a space may ask for."""

from __future__ import annotations

import pytest

from synq_tune.config import StudySpec
from synq_tune.config.cost import runs_of
from synq_tune.config.load import load_space, with_recipe
from synq_tune.errors import SearchSpaceError

WIDTHS = "search.bits.weights={choice: [2, 3, 4, 8]}"


def _spec(*sets: str, **flags) -> StudySpec:
    return load_space("digits_w3a3", sets, {"study": flags})


def test_the_first_objective_is_the_metric() -> None:
    """It need not be said twice; without objectives the metric stands alone, as ever."""
    spec = _spec(WIDTHS, "study.objectives=[top1, size]")
    assert spec.study.metric == "top1" and spec.study.has_front
    assert _spec(WIDTHS, "study.objectives=[auto, bops]").study.metric == "auto"
    assert _spec("study.objectives=[agreement]").study.metric == "agreement"
    assert not _spec("study.objectives=[agreement]").study.has_front
    assert _spec().study.metric == "auto" and _spec().study.objectives == ()
    again = StudySpec.model_validate(spec.model_dump(mode="json", by_alias=True))
    assert again == spec


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["study.objectives=[size, top1]"], "first objective is no cost"),
        (["study.objectives=[top1, top1]"], "objectives differ"),
        (["study.objectives=[top1, auto]"], "objectives differ"),
        (["study.objectives=[auto, agreement]"], "objectives differ"),
        (["study.objectives=[top1, speed]"], "speed"),
        (["study.objectives=[top1, size]", "study.metric=agreement"], "is the first of"),
        (["study.objectives=[top1, size]", "study.target_loss=1"], "a target ends a search by one"),
    ],
)
def test_what_makes_no_sense_is_refused(sets: list[str], said: str) -> None:
    """In one line that says which."""
    with pytest.raises(SearchSpaceError, match=said) as error:
        _spec(WIDTHS, *sets)
    assert "\n" not in str(error.value)


def test_a_cost_that_no_trial_changes_is_measured_all_the_same() -> None:
    """The front is then the best in the first objective, and not empty."""
    for sets in ((), (WIDTHS, "bits.weights=4")):
        spec = _spec(*sets, "study.objectives=[top1, size]")
        assert spec.measures_costs and not spec.searches_bits
    assert _spec(WIDTHS).measures_costs and not _spec().measures_costs


def test_widths_are_searched_like_anything_else() -> None:
    """Each trial has its own; what `--set` fixes is searched no longer."""
    spec = _spec(WIDTHS, "search.bits.first={choice: [4, 8]}")
    assert spec.searches_bits and spec.own_value("bits.weights") == 3
    trial = spec.of_trial({"bits.weights": 8, "lr": 0.5})
    assert (trial.bits.weights, trial.bits.activations, trial.finetune.lr) == (8, 3, 0.5)
    fixed = _spec(WIDTHS, "bits.weights=4")
    assert "bits.weights" not in fixed.search and fixed.bits.weights == 4
    assert not _spec().searches_bits
    for wrong in ("{choice: [1, 4]}", "{choice: [4, 9]}", "{float: [2, 8]}"):
        with pytest.raises(SearchSpaceError, match=r"search\.bits\.weights"):
            _spec(f"search.bits.weights={wrong}")
    with pytest.raises(SearchSpaceError, match="overrides"):
        _spec("search.bits.overrides={choice: [{conv1: 4}, {conv1: 8}]}")


def test_a_recipe_leaves_widths_searched() -> None:
    """They are no part of a method; the ladder's rung of a recipe has one objective."""
    spec = load_space("digits_w3a3", [WIDTHS, "study.objectives=[top1, size]", "recipe=gdfq"])
    assert "bits.weights" in spec.search
    assert with_recipe(spec, "synq_paper").study.objectives == ()


def test_a_front_has_at_most_a_point_a_width() -> None:
    """So many are repeated; where another objective is no cost, every trial may be on it."""
    confirm = "study.confirm={top: 1, seeds: 3}"
    spec = _spec(WIDTHS, confirm, "study.objectives=[top1, size]")
    assert (runs_of(spec, 12).finalists, runs_of(spec, 3).finalists) == (4, 3)
    both = _spec(WIDTHS, confirm, "study.objectives=[top1, agreement]")
    assert runs_of(both, 12).finalists == 12
    assert runs_of(_spec(confirm), 12).finalists == 1


def test_calibrations_of_several_widths_are_several_trials() -> None:
    """Nothing is trained, and nothing repeated: a calibration has no luck."""
    runs = runs_of(_spec(WIDTHS, "finetune.epochs=0"), 4)
    assert (runs.trials, runs.final) == (4, 0)
    assert runs_of(_spec("finetune.epochs=0"), 4).trials == 1
