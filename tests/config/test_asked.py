"""A recipe that is asked for is that recipe, on every space; what a space changes of its own is said."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from synq_tune.config import FineTune, Reconstruct, StudySpec, yaml12
from synq_tune.config.asked import FITTED, KEPT, KEPT_OF_RECONSTRUCT
from synq_tune.config.load import RECIPES_DIR, SPACES_DIR, load_space, names_in, read_recipe
from synq_tune.config.overrides import overrides, overrides_line
from synq_tune.config.spec import WIDTHS
from synq_tune.errors import SearchSpaceError

SPACES = sorted(path.stem for path in SPACES_DIR.glob("*.yaml"))
# Every recipe on a seventh of the spaces, every space with a seventh of the recipes; of the rest a third
# is among the long tests.
ALL = list(itertools.product(SPACES, names_in(RECIPES_DIR)))
PAIRS = ALL[::7] + [
    pytest.param(*pair, marks=pytest.mark.long)
    for place, pair in enumerate(ALL)
    if place % 3 == 0 and place % 7
]
TRANSFORMERS = {"minmax": "vit_minmax", "lsq": "vit_lsq"}
OWN = """format: 1
name: own
recipe: synq
teacher: {model: digits_resnet26, channels: 1, num_classes: 10}
bits: {weights: 4, activations: 4}
finetune: {epochs: 3, momentum: 0.5, temperature: 2, cam_layer: layer3.3.conv2, range_share: 0.8}
"""


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _method(config: FineTune) -> dict[str, Any]:
    return {k: v for k, v in config.model_dump(mode="json").items() if k not in KEPT}


def _value(spec: StudySpec, key: str) -> Any:
    """What a study has of a search key."""
    room, _, field = key.rpartition(".")
    return getattr(getattr(spec, room or "finetune"), field)


def _own(tmp_path: Path, search: str = "", sets: tuple[str, ...] = ()) -> StudySpec:
    (tmp_path / "own.yaml").write_text(OWN + search)
    return load_space(str(tmp_path / "own.yaml"), sets)


@pytest.mark.parametrize(("space", "recipe"), PAIRS)
def test_asking_for_a_recipe_gives_that_recipe(space: str, recipe: str) -> None:
    """Its method whole, over its own ranges, its own values within them, on the space's budget and data."""
    own, spec, tree = (
        load_space(space),
        load_space(space, [f"recipe={recipe}"]),
        read_recipe(recipe),
    )
    assert _method(spec.finetune) == _method(FineTune.model_validate(tree["finetune"]))
    budget = FineTune().model_dump() | yaml12.read(SPACES_DIR / f"{space}.yaml")["finetune"]
    for key in KEPT:
        expected = tree["finetune"].get(key, budget[key])
        assert getattr(spec.finetune, key) == expected, key
    stated = tree.get("synthesis", {})
    for key, value in own.synthesis:
        assert _plain(getattr(spec.synthesis, key)) == stated.get(key, _plain(value)), key
    assert (spec.teacher, spec.bits, spec.study) == (own.teacher, own.bits, own.study)
    is_transformer = own.quantizer.startswith("vit_")
    named = tree["quantizer"]
    assert spec.quantizer == (TRANSFORMERS.get(named, named) if is_transformer else named)
    widths = {key: domain for key, domain in own.search.items() if key in WIDTHS}
    asked = {k for k in tree["search"] if k not in FITTED or k in own.search}
    assert set(spec.search) == asked | widths.keys()
    for key, domain in spec.search.items():
        if key in WIDTHS:  # no part of a method
            assert domain == widths[key]
            continue
        expected = own.search[key].values if key in FITTED else tuple(tree["search"][key]["choice"])
        assert sorted(map(str, domain.values)) == sorted(map(str, expected)), key
        assert domain.contains(_value(spec, key)), key
    stage = Reconstruct.model_validate(tree.get("reconstruct", {}))
    assert spec.reconstruct == stage.model_copy(
        update={k: _value(own, f"reconstruct.{k}") for k in KEPT_OF_RECONSTRUCT}
    )
    assert overrides(spec).keys() <= {"quantizer"}


@pytest.mark.parametrize(("space", "recipe"), ALL[:: 3 * (len(SPACES) // 16)])
def test_a_recipe_is_a_set_of_all_its_keys_applied_in_order(space: str, recipe: str) -> None:
    """What stands behind it wins over it; it wins over what stands before it, of method and ranges."""
    ask = f"recipe={recipe}"
    later = [
        "finetune.tau=0.123",
        "search.lr={choice: [0.5]}",
        "quantizer=deploy",
        "synthesis.seed=7",
    ]
    spec = load_space(space, [ask, *later])
    assert (spec.finetune.tau, spec.search["lr"].values, spec.quantizer) == (
        0.123,
        (0.5,),
        "deploy",
    )
    assert "tau" not in spec.search and spec.synthesis.seed == 7
    earlier = ["finetune.tau=0.123", "search.lr={choice: [0.5]}"]
    assert load_space(space, [*earlier, ask]) == load_space(space, [ask])
    epochs = read_recipe(recipe)["finetune"].get("epochs", 3)
    assert load_space(space, ["finetune.epochs=3", ask]).finetune.epochs == epochs
    assert load_space(space, ["recipe=synq_code", ask]) == load_space(space, [ask])


def test_fields_that_no_recipe_states_do_not_stay_the_spaces(tmp_path: Path) -> None:
    """Momentum, temperature and narrow ranges are method; epochs and the network's layer stay."""
    config = _own(tmp_path, sets=("recipe=synq_paper",)).finetune
    assert (config.momentum, config.temperature, config.range_share) == (0.9, 1.0, 1.0)
    assert (config.epochs, config.cam_layer) == (3, "layer3.3.conv2")


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ("", {}),
        ("search: {lr: {choice: [0.1]}}", {"lr", "tau", "lambda_ce", "lambda_cam"}),
        ("search: {d0: {choice: [8, 80]}}", {"lr", "tau", "lambda_ce", "lambda_cam", "d0"}),
        (
            "search: {temperature: {choice: [1, 2]}, epochs: {choice: [3, 5]}}",
            {"lr", "tau", "lambda_ce", "lambda_cam", "epochs"},
        ),
    ],
)
def test_what_else_a_space_searches(tmp_path: Path, search: str, expected: set[str]) -> None:
    """Nothing where the space searches nothing; D0 and CAM where it does; a budget as it says."""
    assert set(_own(tmp_path, search, ("recipe=synq_paper",)).search) == set(expected)


def test_a_range_without_the_recipes_value_gives_way(tmp_path: Path) -> None:
    """A recipe without filter is not searched over filters; one at 80 is searched over its own range."""
    (tmp_path / "open.yaml").write_text("finetune: {d0: null, lambda_ce: 0}\n")
    search = "search: {d0: {choice: [2, 8]}, lambda_ce: {choice: [0.5]}, tau: {choice: [0.5, 0.6]}}"
    spec = _own(tmp_path, search, ("recipe=open.yaml",))
    assert (set(spec.search), spec.finetune.d0) == ({"tau"}, None)
    paper = _own(tmp_path, search, ("recipe=synq_paper",))
    assert paper.search["d0"].values == (20, 40, 60, 80, 100)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("search: {lr: {choice: [1]}}", "`search.lr holds the recipe's own lr` must hold"),
        ("finetune: 3", "`finetune is a mapping` must hold, but got finetune=3"),
        ("search: [lr]", "`search is a mapping` must hold"),
    ],
)
def test_a_wrong_recipe_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    """It names the file and what must hold."""
    (tmp_path / "wrong.yaml").write_text(text + "\n")
    with pytest.raises(SearchSpaceError, match=message) as caught:
        _own(tmp_path, sets=("recipe=wrong.yaml",))
    assert "\n" not in str(caught.value) and "wrong.yaml" in str(caught.value)


def test_configurations_of_the_spaces_recipe_are_not_tried_first(tmp_path: Path) -> None:
    """They were of other ranges; a best-known configuration and a recipe exclude each other."""
    search = "search: {lr: {choice: [0.1]}}\nstudy: {first: [{lr: 0.1}]}"
    assert _own(tmp_path, search).study.first
    assert _own(tmp_path, search, ("recipe=synq_paper",)).study.first == ()
    with pytest.raises(SearchSpaceError, match="Pass one of them"):
        load_space("digits_w3a3", ["recipe=synq"], start="digits_w3a3")


def test_a_space_says_what_it_changes_of_its_recipe(tmp_path: Path) -> None:
    """Each changed value once, the recipe's first; a recipe's file that is gone is said."""
    spec = load_space("resnet20_cifar10_w3a3")
    assert overrides(spec) == {"lr": (0.01, 0.003), "tau": (0.5, 0.7), "d0": (80.0, 40.0)}
    assert "lr 0.01 → 0.003" in overrides_line(spec)
    gone = spec.model_copy(update={"recipe": str(tmp_path / "gone.yaml")})
    assert "must hold" in overrides_line(gone)


def test_a_recipes_ranges_are_not_under_a_space(tmp_path: Path) -> None:
    """A space that names a recipe searches what it says itself, as before recipes had ranges."""
    assert _own(tmp_path).search == {}
    assert set(_own(tmp_path, "search: {lr: {choice: [0.1]}}").search) == {"lr"}
