"""Spaces: strict, merged by one rule, wrong ones refused with file, key and value."""

from __future__ import annotations

from pathlib import Path

import pytest

from synq_tune.config.load import (
    RECIPES_DIR,
    SPACES_DIR,
    deep_merge,
    load_space,
    names_in,
    with_recipe,
)
from synq_tune.errors import InputError, SearchSpaceError

BAD = {
    "unknown key": (["finetune.lrr=1"], r"finetune: Unknown key 'lrr'.*Did you mean 'lr'"),
    "unknown key in a section in a section": (
        ["study.confirm={tops: 1}"],
        r"study.confirm: Unknown key 'tops'. Did you mean 'top'\? Available: seeds, top",
    ),
    "unknown form": (["search.lr={choise: [1]}"], r"search.lr: .*'choise'. Did you mean 'choice'"),
    "key of a section": (
        ["lr=1"],
        r"Unknown key 'lr'. Did you mean 'finetune.lr'\? Available: bits",
    ),
    "key of another section": (
        ["finetune.num_images=1"],
        r"finetune: Unknown key 'num_images'. Did you mean 'synthesis.num_images'\?",
    ),
    "key that is missing": (["teacher.model=null"], r"`teacher.model is given` must hold.*Add it"),
    "unknown section": (["serch.lr=1"], r"Unknown key 'serch'.*Did you mean 'search'"),
    "unknown cam": (["finetune.cam=gradcan"], r"finetune.cam: .*'gradcan'.*Did you mean 'gradcam'"),
    "unknown cam in search": (["search.cam={choice: [gradcan]}"], r"'gradcan'.*'gradcam'"),
    "unknown recipe": (["recipe=synk"], r"Unknown recipe 'synk'.*Did you mean 'synq'"),
    "unknown quantizer": (["quantizer=minmx"], r"quantizer: .*'minmx'.*Did you mean 'minmax'"),
    "unknown model": (["teacher.model=digits_resnet"], r"Did you mean 'digits_resnet26'"),
    "unknown method": (["synthesis.method=synk"], r"synthesis.method: .*Did you mean 'synq'"),
    "unknown searched field": (["search.tua={choice: [1]}"], r"'tua'.*Did you mean 'tau'"),
    "bits too low": (["bits.weights=1"], r"bits.weights: .*greater than or equal to 2.*got 1"),
    "bits too high": (["bits.activations=9"], r"bits.activations: .*less than or equal to 8"),
    "tau above one": (["search.tau={choice: [3]}"], r"tau: .*less than or equal to 1, but got 3"),
    "fractional count": (["finetune.epochs=1.5"], r"finetune.epochs: .*integer"),
    "nan": (["finetune.lr=.nan"], r"finetune.lr: .*"),
    "empty choice": (
        ["search.lr={choice: []}"],
        r"search.lr: .*choice, float and int has values.*got an empty one",
    ),
    "low above high": (["search.lr={float: [2, 1]}"], r"`low < high` must hold"),
    "log of zero": (["search.lr={float: [0, 1], log: true}"], r"positive interval"),
    "first is not searched": (["study.first=[{tau: 0.123}]"], r"study.first\[0\].*tau"),
    "no value": (["finetune.lr"], r"`--set is KEY.PATH=VALUE` must hold"),
    "mean of three for one channel": (["teacher.mean=[0, 0, 0]"], r"len\(mean\) == channels"),
    "broken yaml": (["finetune.lr=[1"], r"--set finetune.lr.*not valid YAML"),
}


@pytest.mark.parametrize(("sets", "message"), BAD.values(), ids=BAD.keys())
def test_wrong_settings_are_refused(sets: list[str], message: str) -> None:
    """Each mistake is one line that names key and value and, where it can, the nearest name."""
    with pytest.raises(InputError, match=message) as caught:
        load_space("digits_w3a3", sets)
    assert "\n" not in str(caught.value)


def test_an_unknown_space_names_the_nearest() -> None:
    """A mistyped space is answered with the one that was probably meant."""
    with pytest.raises(InputError, match="Did you mean 'digits_w3a3'"):
        load_space("digit_w3a3")


@pytest.mark.parametrize("name", ["../digits_w3a3", "/etc/passwd", "digits_w3a3/../x"])
def test_names_do_not_leave_their_folder(name: str) -> None:
    """A name is looked up among the bundled spaces, never as a path."""
    with pytest.raises(InputError, match="Unknown space"):
        load_space(name)
    with pytest.raises(InputError, match="Unknown recipe"):
        load_space("digits_w3a3", [f"recipe={name}"])


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", ""])
def test_a_study_is_named_without_path(name: str) -> None:
    """A study's name becomes a folder, so it holds no separators."""
    with pytest.raises(SearchSpaceError, match="name"):
        load_space("digits_w3a3", [f"name={name!r}"])


@pytest.mark.parametrize("path", sorted(SPACES_DIR.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_bundled_space_loads(path: Path) -> None:
    """A space in the folder is valid and named like its file."""
    assert load_space(path.stem).name == path.stem


@pytest.mark.parametrize("recipe", names_in(RECIPES_DIR))
def test_every_recipe_fits_a_space(recipe: str) -> None:
    """Any recipe can be put under any space."""
    assert load_space("digits_w3a3", [f"recipe={recipe}"]).recipe == recipe


def test_later_settings_win() -> None:
    """recipe < space < --set < flags."""
    assert load_space("digits_w3a3").finetune.temperature == 4.0  # the recipe's
    assert load_space("digits_w3a3").finetune.epochs == 24  # the space's
    by_set = load_space("digits_w3a3", ["finetune.epochs=3", "study.seed=5"])
    assert (by_set.finetune.epochs, by_set.study.seed) == (3, 5)
    by_flag = load_space("digits_w3a3", ["study.seed=5"], {"study": {"seed": 6}})
    assert by_flag.study.seed == 6


def test_a_flag_not_given_changes_nothing() -> None:
    """None is the absence of a flag."""
    flags = {"study": {"seed": None, "num_trials": None}}
    assert load_space("digits_w3a3", [], flags) == load_space("digits_w3a3")


def test_setting_a_field_takes_it_out_of_the_search() -> None:
    """`--set finetune.X` fixes X."""
    spec = load_space("digits_w3a3", ["finetune.tau=0.6"])
    assert "tau" not in spec.search
    assert spec.finetune.tau == 0.6
    assert "lr" in spec.search


def test_a_searched_domain_is_replaced_whole() -> None:
    """A choice and an interval for one key do not merge into nonsense."""
    spec = load_space("digits_w3a3", ["search.lr={float: [1e-5, 1e-3], log: true}"])
    assert spec.search["lr"].values == (1e-5, 1e-3)
    assert spec.search["lr"].choice is None


def test_merge_replaces_lists() -> None:
    """Only mappings merge."""
    assert deep_merge({"a": [1, 2], "b": {"c": 1}}, {"a": [3], "b": {"d": 2}}) == {
        "a": [3],
        "b": {"c": 1, "d": 2},
    }


def test_numbers_follow_yaml_1_2() -> None:
    """`1e-5` is a number; a leading zero is not octal."""
    assert load_space("digits_w3a3", ["finetune.lr=1e-5"]).finetune.lr == 1e-5
    assert load_space("digits_w3a3", ["study.seed=010"]).study.seed == 10


def test_a_key_given_twice_is_an_error(tmp_path: Path) -> None:
    """YAML would silently take the last."""
    path = tmp_path / "twice.yaml"
    path.write_text("format: 1\nname: a\nname: b\n")
    with pytest.raises(SearchSpaceError, match="'name' is given twice"):
        load_space(str(path))


def test_numeric_choices_are_ordered() -> None:
    """Samplers see numbers in increasing order, words as written."""
    spec = load_space("digits_w3a3", ["search.d0={choice: [80, 2, 20]}"])
    assert spec.search["d0"].values == (2, 20, 80)
    assert spec.search["cam"].values == ("cam", "gradcam", "gradcam++")


def test_the_papers_defaults_keep_the_budget() -> None:
    """The ladder's rung differs in method, not in epochs, bits, teacher or dataset."""
    spec = load_space("digits_w3a3")
    paper = with_recipe(spec, "synq_paper")
    assert (paper.finetune.temperature, paper.finetune.cam_reduction) == (1.0, "sum")
    assert paper.finetune.epochs == spec.finetune.epochs
    assert (paper.bits, paper.teacher, paper.synthesis) == (spec.bits, spec.teacher, spec.synthesis)
