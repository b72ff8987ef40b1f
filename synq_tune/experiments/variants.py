"""Variants of one space: which settings each of them changes, merged by the one merge rule."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from synq_tune import own_code
from synq_tune.config import Bits, FineTune, Reconstruct, StudySpec, Synthesis, yaml12
from synq_tune.config.asked import KEPT
from synq_tune.config.load import load_space, parse_assignment, read_recipe
from synq_tune.config.paths import absolute_names, find_file
from synq_tune.errors import InputError, SearchSpaceError, lookup

# A field that a variant fixes is no longer searched, which `first` could not be valid with.
_NAMED_CODE = (
    ("teacher", "model"),
    ("synthesis", "method"),
    ("finetune", "cam"),
    ("reconstruct", "method"),
)
"""What may name the user's own code."""
_NOTHING_FIRST = 'study={"first": []}'


@dataclass(frozen=True)
class Comparison:
    """What is compared with what."""

    baseline: str
    variants: dict[str, StudySpec]
    """In the order of the file, the baseline among them; their `search` is empty."""


def load_comparison(
    path: Path,
    space: str,
    assignments: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> Comparison:
    """Read a file of variants and merge recipe < space < variant < assignments < flags.

    A variant is a partial space. One that names a `recipe` takes the recipe's finetune and
    reconstruct in place of the space's, all but the budget and the network's layer (`KEPT`), and
    its own settings over it.
    Everything else of the recipe lies under the space, so that variants differ in nothing but what
    they name: images and quantizer stay the space's where it states them.

    Args:
        path: YAML with `baseline: NAME` and `variants: {NAME: SETTINGS}`.
        space, assignments, flags: as in `load_space`; the space's `search` is ignored.

    Raises:
        SearchSpaceError: file, key or value is wrong.
        InputError: there are no labelled images to compare on.
    """
    baseline, trees = _read(path)
    return merge(baseline, trees, path, space, assignments, flags)


def merge(
    baseline: str,
    trees: Mapping[str, dict[str, Any]],
    path: Path,
    space: str,
    assignments: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> Comparison:
    """The same for variants as they were read from `path`; their settings by name."""
    first, later = _split(list(assignments))
    common = load_space(space, [*first, *later], flags)
    _check_labelled(common)
    _check_one_recipe(path, trees, first)
    folders = (Path(), path.resolve().parent, Path(space).resolve().parent)
    variants = {}
    for name, tree in trees.items():
        try:
            recipe, sets = _as_assignments(absolute_names(tree, folders), space, folders)
            spec = load_space(space, [*first, *sets, *later], flags, recipe=recipe)
        except InputError as error:
            raise SearchSpaceError(f"{path}: variants.{name}: {error}") from error
        variants[name] = spec.model_copy(update={"search": {}})
    return Comparison(baseline, variants)


def _split(assignments: list[str]) -> tuple[list[str], list[str]]:
    """Assignments before and after the variants' own settings: up to a recipe, and the rest."""
    asks = [i for i, text in enumerate(assignments) if "recipe" in parse_assignment(text)]
    cut = asks[-1] + 1 if asks else 0
    return [_NOTHING_FIRST, *assignments[:cut]], assignments[cut:]


def settings_of(spec: StudySpec) -> dict[str, Any]:
    """The part of a spec that decides a run's result, as plain values.

    Names, folders and what only a search reads are left out. Checkpoints count by the teacher's
    fingerprint, own code by its text.
    """
    tree = spec.model_dump(mode="json", by_alias=True)
    kept = {key: tree[key] for key in ("teacher", "quantizer", "bits", "synthesis", "finetune")}
    del kept["teacher"]["weights"]
    if spec.reconstruct.is_on:  # rows of before have none
        kept["reconstruct"] = tree["reconstruct"]
    for room, key in _NAMED_CODE:
        if room in kept and own_code.is_own_code(kept[room][key]):
            kept[room][key] = own_code.identity(kept[room][key])
    return {**kept, "val_data": spec.study.val_data}


def filled(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Recorded settings with the defaults of fields that were added since."""
    shapes = {
        "bits": Bits,
        "synthesis": Synthesis,
        "finetune": FineTune,
        "reconstruct": Reconstruct,
    }
    whole = {k: {**_defaults(m), **settings[k]} for k, m in shapes.items() if k in settings}
    return {**settings, **whole}


def _defaults(model: type[BaseModel]) -> dict[str, Any]:
    return {k: f.default for k, f in model.model_fields.items() if not f.is_required()}


def _read(path: Path) -> tuple[str, dict[str, dict[str, Any]]]:
    """Name of the baseline, and the settings of each variant by its name."""
    tree = yaml12.read(path)
    for key in tree:
        lookup(f"key of {path}", str(key), ("baseline", "variants"))
    variants = tree.get("variants")
    if not isinstance(variants, dict) or not variants:
        raise SearchSpaceError(
            f"{path}: `variants: {{NAME: SETTINGS, …}}` must hold, but got "
            f"variants={variants!r}. Name at least one."
        )
    trees = {str(name): _settings(path, str(name), value) for name, value in variants.items()}
    if str(tree.get("baseline")) not in trees:
        raise SearchSpaceError(
            f"{path}: `baseline is one of the variants` must hold, but got "
            f"baseline={tree.get('baseline')!r}. Variants: {', '.join(trees)}."
        )
    return str(tree["baseline"]), trees


def _settings(path: Path, name: str, value: Any) -> dict[str, Any]:
    tree = {} if value is None else value
    if not isinstance(tree, dict):
        raise SearchSpaceError(
            f"{path}: variants.{name}: `settings are a mapping` must hold, but got {value!r}."
        )
    for key in ("search", "study"):
        if key in tree:
            raise SearchSpaceError(
                f"{path}: variants.{name}: `a variant has no {key}` must hold, but got "
                f"{key}={tree[key]!r}. All variants run with the same seeds on the same labelled images: "
                "use --seeds and --val-data."
            )
    return tree


def _check_labelled(spec: StudySpec) -> None:
    if spec.study.val_data is None:
        raise InputError(
            "study.val_data: `labelled images are given` must hold, but got val_data=None. "
            "Pass --val-data."
        )


def _check_one_recipe(
    path: Path, trees: Mapping[str, dict[str, Any]], assignments: Iterable[str]
) -> None:
    is_set = any("recipe" in parse_assignment(text) for text in assignments)
    named = [name for name, tree in trees.items() if "recipe" in tree]
    if is_set and named:
        raise SearchSpaceError(
            f"{path}: variants.{named[0]}: `no variant names a recipe beside --set recipe` must "
            f"hold, but got recipe={trees[named[0]]['recipe']!r}. Leave one of them out."
        )


def _as_assignments(
    tree: dict[str, Any], space: str, folders: tuple[Path, ...]
) -> tuple[str | None, list[str]]:
    """A variant's recipe, and its settings in the form of `--set`, the recipe's before its own."""
    if "recipe" not in tree:
        return None, _spell(tree)
    recipe = str(tree["recipe"])
    if recipe.endswith((".yaml", ".yml")):
        recipe = str(find_file("recipe", recipe, folders))
    own = load_space(space, [_NOTHING_FIRST]).finetune
    kept = {key: getattr(own, key) for key in KEPT}
    stated = read_recipe(recipe)
    if stated.get("finetune", {}).get("epochs") == 0:  # to train nothing is a method, no budget
        del kept["epochs"]
    method = FineTune.model_validate({**stated.get("finetune", {}), **kept})
    stage = Reconstruct.model_validate(stated.get("reconstruct", {}))
    rooms = {
        "finetune": method.model_dump(mode="json"),
        "reconstruct": stage.model_dump(mode="json"),
    }
    settings = {key: value for key, value in tree.items() if key != "recipe"}
    return recipe, _spell(rooms) + _spell(settings)


def _spell(tree: Mapping[str, Any]) -> list[str]:
    # JSON is YAML: the values go through the same parser as the user's.
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in tree.items()]
