"""The one merge: recipe, then space, then `--from`, then `--set`, then the command's own flags.

`--set recipe=NAME` is a `--set` of all that the recipe states: see `synq_tune.config.asked`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from synq_tune.config import FORMAT, FineTune, Study, StudySpec, Synthesis, Teacher, asked, yaml12
from synq_tune.config.best_known import read_best_known, tried_first
from synq_tune.config.nulls import inner_annotation, members, unset, unset_path, without_nulls
from synq_tune.config.paths import absolute_names, find_file
from synq_tune.config.spec import SEARCHABLE
from synq_tune.errors import SearchSpaceError, in_stage, lookup
from synq_tune.redact import redact_uri

RECIPES_DIR = Path(__file__).parents[1] / "recipes"
# A link in the source tree to the folder at its top; a folder of the package where it is installed.
SPACES_DIR = (Path(__file__).parents[1] / "search_spaces").resolve()

# Values that are one thing, not a tree to merge into.
_WHOLE = ("search", "teacher.kwargs", "bits.overrides", "study.confirm")


def _named_file(kind: str, name: str, folder: Path, beside: tuple[Path, ...] = ()) -> Path:
    """The file of a bundled name, or of a path: in the current folder, then in those `beside`."""
    if name.endswith((".yaml", ".yml")):
        return find_file(kind, name, (Path(), *beside))
    return folder / f"{lookup(kind, name, names_in(folder))}.yaml"


def names_in(folder: Path) -> list[str]:
    """Names of the bundled spaces or recipes: of the YAML files in `folder`."""
    return sorted(p.stem for p in folder.glob("*.yaml"))


def deep_merge(base: Mapping[str, Any], over: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """`over` on top of `base`; mappings merge key by key, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        here = f"{path}.{key}" if path else str(key)
        both = isinstance(merged.get(key), Mapping) and isinstance(value, Mapping)
        whole = here in _WHOLE[1:] or path in _WHOLE
        merged[key] = deep_merge(merged[key], value, here) if both and not whole else value
    return merged


def parse_assignment(text: str) -> dict[str, Any]:
    """`a.b=value` → {"a": {"b": value}}; the value is YAML. `search.reconstruct.X` and
    `search.bits.X` are one key of search."""
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise SearchSpaceError(f"`--set is KEY.PATH=VALUE` must hold, but got {text!r}.")
    if parts[0] not in StudySpec.model_fields:
        lookup("key", parts[0], StudySpec.model_fields, _sections_with(parts[0]))
    if parts[0] == "search" and len(parts) > 2 and ".".join(parts[1:3]) in SEARCHABLE:
        parts[1:3] = [".".join(parts[1:3])]
    tree: Any = yaml12.parse(value, f"--set {key}")
    for part in reversed(parts):
        tree = {part: tree}
    return tree


def _fix(tree: dict[str, Any], assignment: dict[str, Any]) -> dict[str, Any]:
    """Apply one assignment; what it fixes is no longer searched."""
    merged = deep_merge(tree, assignment)
    fixed = {
        prefix + key
        for room, prefix in (("finetune", ""), ("reconstruct", "reconstruct."), ("bits", "bits."))
        for key in (assignment[room] if isinstance(assignment.get(room), dict) else ())
    }
    if fixed and isinstance(merged.get("search"), dict):
        merged["search"] = {k: v for k, v in merged["search"].items() if k not in fixed}
    return merged


def _explain(error: ValidationError, where: str) -> str:
    """The first problem of a validation as one line: file, key, value, what is allowed."""
    first = _most_telling(error)
    key = ".".join(_keys(first["loc"]))
    if first["type"] == "extra_forbidden":
        return _explain_unknown(where, first["loc"])
    if first["type"] == "missing":
        return f"{where}: `{key} is given` must hold, but the key is missing. Add it."
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    shown = redact_uri(first["input"]) if isinstance(first["input"], str) else first["input"]
    is_said = isinstance(shown, dict) or repr(shown) in message or ", but got" in message
    got = "" if is_said else f", but got {shown!r}"
    return f"{where}: {key + ': ' if key else ''}{message}{got}."


def _most_telling(error: ValidationError) -> Any:
    """Of the problems with one key, which may be of several types, the one that says a range."""
    first, *others = error.errors()
    key = _keys(first["loc"])
    same = [e for e in others if _keys(e["loc"])[: len(key)] == key and e["loc"] != first["loc"]]
    is_vague = first["type"].endswith(("_type", "_error", "literal_error"))
    return next((e for e in same if is_vague and not e["type"].endswith("_type")), first)


_TYPE = re.compile(
    r"auto|str|int|float|bool|(literal|constrained|tuple|dict|function|nullable)\b.*"
)


def _keys(loc: tuple[Any, ...]) -> list[str]:
    """A problem's place without the types that were tried there."""
    keep = [part for part in loc if loc[0] == "search" or not _TYPE.fullmatch(str(part))]
    return [str(part) for part in keep]


def _explain_unknown(where: str, loc: tuple[Any, ...]) -> str:
    *path, key = _keys(loc)
    annotation: Any = StudySpec
    for part in path:
        annotation = inner_annotation(annotation, part)
    shapes = [m for m in members(annotation) if hasattr(m, "model_fields")]
    known = [f.alias or name for shape in shapes for name, f in shape.model_fields.items()]
    place = f"{where}: {'.'.join(path)}: " if path else f"{where}: "
    is_near = difflib.get_close_matches(key, known, n=1, cutoff=0.8)
    try:
        lookup("key", key, known, () if is_near else _sections_with(key))
    except ValueError as error:
        return f"{place}{error}"
    return f"{place}{key} is not a known key."


def _sections_with(key: str) -> list[str]:
    """Full names of what is called `key` in a section, such as `finetune.lr`; those of training
    first."""
    shapes = {"finetune": FineTune, "synthesis": Synthesis, "study": Study, "teacher": Teacher}
    return [f"{name}.{key}" for name, shape in shapes.items() if key in shape.model_fields]


def build_spec(tree: Mapping[str, Any], where: str) -> StudySpec:
    """Validate a merged tree; errors become one line that starts with `where`."""
    try:
        return StudySpec.model_validate(tree)
    except ValidationError as error:
        raise SearchSpaceError(_explain(error, where)) from error


@in_stage("reading the space", str)
def load_space(
    space: str,
    assignments: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
    start: str | None = None,
    recipe: str | None = None,
) -> StudySpec:
    """Read a space by name or file and merge recipe < space < start < assignments < flags.

    Args:
        space: name of a file in `search_spaces/`, or a path ending in `.yaml`.
        assignments: `key.path=value` texts, applied in order. `recipe=NAME` puts the recipe's
            method over the space's and all earlier ones.
        flags: nested values of the command's own flags; `None` leaves are ignored.
        start: a best-known configuration by name or file: the settings to start from, and the first
            to be tried.
        recipe: by name or file, what lies under the space instead of the recipe that it names.

    Raises:
        SearchSpaceError: a file, key or value is wrong; the message says which.
    """
    path = _named_file("space", space, SPACES_DIR)
    tree = yaml12.read(path)
    if tree.get("format") != FORMAT:
        raise SearchSpaceError(
            f"{path}: `format == {FORMAT}` must hold, but got format={tree.get('format')!r}. "
            f"Write `format: {FORMAT}`."
        )
    sets = [parse_assignment(text) for text in assignments]
    beside = path.resolve().parent
    sets = _last_recipe_only(sets)
    if {"recipe": None} in sets:  # as if the space had named none
        sets.remove({"recipe": None})
        tree.pop("recipe", None)
    sets = [_with_absolute_recipe(s, beside) for s in sets]
    named = next((s["recipe"] for s in sets if "recipe" in s), None)
    _check_start(start, named)
    under = named or _absolute_recipe(str(recipe or tree.get("recipe", "synq")), beside)
    best = read_best_known(start) if start is not None else None
    stacked = _stack(under, tree, best.finetune if best else {}, sets, flags or {})
    stacked = tried_first(stacked, best) if best else stacked
    merged = absolute_names(stacked, (Path(), beside))
    return build_spec({**merged, "recipe": under}, str(path))


def _last_recipe_only(sets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of several recipes that are asked for the last one counts, and nothing of the others."""
    last = max((i for i, s in enumerate(sets) if "recipe" in s), default=None)
    return [s for i, s in enumerate(sets) if "recipe" not in s or i == last]


def _with_absolute_recipe(assignment: dict[str, Any], beside: Path) -> dict[str, Any]:
    if "recipe" not in assignment:
        return assignment
    return {"recipe": _absolute_recipe(str(assignment["recipe"]), beside)}


def _check_start(start: str | None, recipe: str | None) -> None:
    if start is not None and recipe is not None:
        raise SearchSpaceError(
            "`--from goes with the space's own recipe` must hold, but got --from "
            f"{start} and --set recipe={recipe}: each states the same settings. Pass one of them."
        )


def _absolute_recipe(name: str, beside: Path) -> str:
    """A bundled name as it is; a file's path absolute, so that it means the same everywhere."""
    path = _named_file("recipe", name, RECIPES_DIR, (beside,))
    return name if path.parent == RECIPES_DIR and path.stem == name else str(path)


def _stack(
    recipe: str,
    tree: dict[str, Any],
    start: Mapping[str, Any],
    sets: list[dict[str, Any]],
    flags: Mapping[str, Any],
) -> dict[str, Any]:
    below = {key: value for key, value in read_recipe(recipe).items() if key != "search"}
    merged = deep_merge(below, _with_file_key(without_nulls(tree)))
    merged = deep_merge(merged, {"finetune": start})
    asks_package = any("package" in _given_weights(assignment) for assignment in sets)
    for assignment in sets:
        if assignment.get("recipe") is not None:
            merged = _ask(merged, recipe)
        elif path := unset_path(assignment):
            merged = unset(merged, below, path)
        else:
            change = _with_file_key(assignment)
            merged = _fix(merged if asks_package else _without_package(merged, change), change)
    flags = _drop_none(flags)
    return deep_merge(_without_package(merged, flags), flags)


def _ask(tree: dict[str, Any], name: str) -> dict[str, Any]:
    """The recipe's method over a study; configurations to try first were of another recipe."""
    asked.check_sections(tree, f"--set recipe={name}")
    recipe = read_recipe(name)
    rest = {k: v for k, v in recipe.items() if k not in ("finetune", "reconstruct", "search")}
    own_finetune, own_search = tree.get("finetune") or {}, tree.get("search") or {}
    merged = deep_merge(tree, rest)
    merged["finetune"] = asked.finetune_of(own_finetune, recipe)
    merged["reconstruct"] = asked.reconstruct_of(tree.get("reconstruct") or {}, recipe)
    merged["search"] = asked.search_of(own_search, recipe)
    if "quantizer" in merged:
        merged["quantizer"] = asked.quantizer_of(tree.get("quantizer"), recipe.get("quantizer"))
    return deep_merge(merged, {"study": {"first": []}})


def _with_file_key(tree: dict[str, Any]) -> dict[str, Any]:
    """`weights: FILE` → `weights: {file: FILE}`, which another file replaces and a sum stays
    with."""
    teacher = tree.get("teacher")
    if not isinstance(teacher, dict) or not isinstance(teacher.get("weights"), str):
        return tree
    return {**tree, "teacher": {**teacher, "weights": {"file": teacher["weights"]}}}


def _given_weights(change: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a change says of the teacher's weights."""
    teacher = change.get("teacher")
    weights = teacher.get("weights") if isinstance(teacher, Mapping) else None
    return weights if isinstance(weights, Mapping) else {}


def _without_package(tree: dict[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """The tree without the package of its weights, where `change` names a file instead."""
    given, weights = _given_weights(change), _given_weights(tree)
    if given.get("file") is None or "package" in given or "package" not in weights:
        return tree
    kept = {key: value for key, value in weights.items() if key != "package"}
    return {**tree, "teacher": {**tree["teacher"], "weights": kept}}


def _drop_none(tree: Mapping[str, Any]) -> dict[str, Any]:
    nested = {k: _drop_none(v) if isinstance(v, Mapping) else v for k, v in tree.items()}
    return {k: v for k, v in nested.items() if v is not None and v != {}}


def read_recipe(name: str) -> dict[str, Any]:
    """The tree of a recipe by name or file.

    Its `search` holds where the recipe is asked for; a space says itself what it searches.

    Raises:
        SearchSpaceError: there is none, or a range does not hold the recipe's own value.
    """
    path = _named_file("recipe", name, RECIPES_DIR)
    tree = without_nulls(yaml12.read(path))
    asked.check_ranges(tree, str(path))
    return absolute_names(tree, (Path(), path.resolve().parent))


def with_recipe(spec: StudySpec, recipe: str) -> StudySpec:
    """The same study with the training settings of another recipe at the same budget.

    Teacher, bits, quantizer, dataset, epochs and batch size stay; everything else of `finetune`
    comes from the recipe. Used for the ladder's rung "the paper's defaults", whose study has one
    dataset and one placement of grids.
    """
    finetune = read_recipe(recipe).get("finetune", {})
    kept = {key: getattr(spec.finetune, key) for key in asked.KEPT}
    tree = {**spec.model_dump(by_alias=True), "recipe": recipe, "search": {}}
    tree["finetune"] = {**finetune, **kept}
    tree["reconstruct"] = read_recipe(recipe).get("reconstruct", {})
    tree["study"] = {**tree["study"], "first": (), "objectives": ()}
    return build_spec(tree, f"recipe {recipe}")
