"""`null` unsets: a key is as if the space had not said it, unless null is a value of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from synq_tune.config import Confirm, Settings, StudySpec, Weights, yaml12
from synq_tune.config.load import SPACES_DIR, build_spec, load_space, read_recipe
from synq_tune.config.nulls import inner_annotation, members, takes_null
from synq_tune.errors import SearchSpaceError

SPACES = sorted(SPACES_DIR.glob("*.yaml"))
REQUIRED = {("name",), ("teacher",), ("teacher", "model"), ("bits",), ("bits", "weights"),
            ("bits", "activations")}  # fmt: skip


def _paths(model: type[Settings], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        yield (*path, name)
        for member in members(field.annotation):
            if isinstance(member, type) and issubclass(member, Settings):
                yield from _paths(member, (*path, name))


PATHS = [path for path in _paths(StudySpec) if path[0] not in ("format", "recipe")]


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        tree = getattr(tree, key) if isinstance(tree, Settings) else (tree or {}).get(key)
        if tree is None:
            return None
    return tree


def _annotation(path: tuple[str, ...]) -> Any:
    annotation: Any = StudySpec
    for key in path:
        annotation = inner_annotation(annotation, key)
    return annotation


def _without(tree: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    first, *rest = path
    if not rest:
        return {k: v for k, v in tree.items() if k != first}
    inner = tree.get(first)
    return {**tree, first: _without(inner, tuple(rest))} if isinstance(inner, dict) else tree


@pytest.mark.long
def test_null_is_as_if_the_space_had_not_said_it(tmp_path: Path) -> None:
    """For every field there is: the space without that key, or the field's own null."""
    space = "resnet18_w3a3"
    tree = yaml12.read(SPACES_DIR / f"{space}.yaml")
    for path in PATHS:
        text = f"{'.'.join(path)}=null"
        if path in REQUIRED:
            with pytest.raises(SearchSpaceError, match=f"`{'.'.join(path)} is given` must hold"):
                load_space(space, [text])
            continue
        if takes_null(_annotation(path)):
            try:
                assert _at(load_space(space, [text]), path) is None, text
            except SearchSpaceError as error:  # such as source, which goes with its method
                assert path[-1] in str(error)
            continue
        file = tmp_path / f"{space}.yaml"
        file.write_text(yaml.safe_dump(_without(tree, path)))
        assert load_space(space, [text]) == load_space(str(file)), text


@pytest.mark.parametrize("path", SPACES, ids=lambda p: p.stem)
def test_every_space_can_be_taken_without_its_weights_and_search(path: Path) -> None:
    """Also one that names a download."""
    sets = ["teacher.weights=null", "teacher.kwargs=null", "bits.overrides=null", "search=null",
            "study.first=null", "study.confirm=null"]  # fmt: skip
    spec = load_space(path.stem, sets)
    assert spec.teacher.weights == Weights()
    assert (spec.teacher.kwargs, spec.bits.overrides, spec.search) == ({}, {}, {})
    assert (spec.study.first, spec.study.confirm) == ((), None)


@pytest.mark.parametrize("path", SPACES, ids=lambda p: p.stem)
def test_a_searched_key_is_no_longer_searched(path: Path) -> None:
    """`search.tau=null` takes tau out and leaves the rest and finetune's own value."""
    space = load_space(path.stem)
    *some, kept = space.search
    spec = load_space(path.stem, [f"search.{key}=null" for key in some])
    assert spec.search == {kept: space.search[kept]}
    assert spec.finetune == space.finetune


def test_a_recipes_value_comes_back() -> None:
    """The space's word is taken back, the recipe's stands."""
    recipe = read_recipe("synq")["finetune"]
    assert (
        load_space("digits_w3a3", ["finetune.lr=5", "finetune.lr=null"]).finetune.lr == recipe["lr"]
    )
    assert load_space("resnet18_w3a3", ["finetune.flip=null"]).finetune.flip == recipe.get(
        "flip", True
    )


@pytest.mark.parametrize(
    "key", ["tau", "d0", "crop_scale", "mix_weight", "grad_clip", "steps_per_epoch"]
)
def test_a_null_that_means_something_stays(key: str) -> None:
    """Off, all, none: values of these fields, which are then no longer searched."""
    sets = [f"finetune.{key}=null", "finetune.paste_probability=0"]
    spec = load_space("digits_w3a3", sets)
    assert getattr(spec.finetune, key) is None
    assert key not in spec.search


def test_one_entry_of_a_dictionary_is_taken_out() -> None:
    """The others stay."""
    sets = ["bits.overrides={conv1: 8, linear: 4}", "bits.overrides.conv1=null"]
    assert load_space("digits_w3a3", sets).bits.overrides == {"linear": 4}
    sets = ["study.confirm={top: 5, seeds: 4}", "study.confirm.top=null"]
    assert load_space("digits_w3a3", sets).study.confirm == Confirm(seeds=4)


def test_an_empty_section_of_a_file_is_no_section(tmp_path: Path) -> None:
    """YAML reads `search:` with nothing below it as null."""
    tree = yaml12.read(SPACES_DIR / "digits_w3a3.yaml")
    text = (SPACES_DIR / "digits_w3a3.yaml").read_text().split("search:")[0]
    file = tmp_path / "own.yaml"
    file.write_text(f"{text}search:\nstudy:\nsynthesis_:\n".replace("synthesis_:\n", ""))
    spec = load_space(str(file))
    assert spec.search == {} and tree["search"]
    assert spec.study == build_spec({**_without(spec.model_dump(), ("study",))}, "x").study


def test_later_words_count() -> None:
    """What is set after it was unset is set."""
    sets = ["teacher.weights=null", "teacher.weights=x.pth"]
    assert load_space("resnet18_w3a3", sets).teacher.weights == Weights(file="x.pth")


def test_no_recipe_is_the_default_one() -> None:
    """`recipe=null` is as if the space had named none; its own values stay over the default recipe."""
    spec = load_space("cifar_resnet20_w3a3_lsq", ["recipe=null"])
    assert spec.recipe == "synq" and spec.finetune.paste_probability == 0.5
