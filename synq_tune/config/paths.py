"""Names of the user's own files in a space, made absolute: workers and `--resume` find them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from synq_tune import own_code
from synq_tune.config import FineTune, Reconstruct, Settings, StudySpec, Synthesis, Teacher
from synq_tune.config.spec import SEARCHABLE_NAMES
from synq_tune.errors import InputError, SearchSpaceError

NAMED_SECTIONS: dict[tuple[str, ...], type[Settings]] = {
    (): StudySpec,
    ("teacher",): Teacher,
    ("synthesis",): Synthesis,
    ("finetune",): FineTune,
    ("reconstruct",): Reconstruct,
}
"""Where a study's settings stand → the settings, of which some name the user's own code."""


def find_file(key: str, name: str, folders: Iterable[Path]) -> Path:
    """The file `name`, looked for in `folders` in order; absolute.

    Raises:
        SearchSpaceError: it is in none of them.
    """
    wanted = Path(name).expanduser()
    places = [(folder / wanted).absolute() for folder in folders]
    for place in places:
        if place.is_file():
            return place.resolve()
    seen = ", ".join(dict.fromkeys(str(place.parent) for place in places))
    raise SearchSpaceError(
        f"`the {key} file exists` must hold, but got {key}={name!r}. Looked in: {seen}."
    )


def absolute_names(tree: dict[str, Any], folders: tuple[Path, ...]) -> dict[str, Any]:
    """The tree with every name of a file of own code absolute, and `class_names: FILE.txt` read.

    What is not a name of own code stays as it is: the validation says what is wrong with it.
    """
    for section, settings in NAMED_SECTIONS.items():
        for key in settings.name_fields():
            tree = _change(tree, (*section, key), folders)
    for key in SEARCHABLE_NAMES:
        tree = _change(tree, ("search", key, "choice"), folders)
    tree = _change(tree, ("teacher", "class_names"), folders)
    study = tree.get("study")
    if isinstance(study, dict) and isinstance(study.get("first"), (list, tuple)):
        first = list(study["first"])
        for key in SEARCHABLE_NAMES:
            first = [_change(params, (key,), folders) for params in first]
        tree = {**tree, "study": {**study, "first": first}}
    return tree


def own_names(spec: StudySpec) -> list[str]:
    """Every name of the user's own code in a study, in alphabetical order."""
    parts = (spec, spec.teacher, spec.synthesis, spec.finetune, spec.reconstruct)
    named = {getattr(part, key) for part in parts for key in part.name_fields()}
    for key in SEARCHABLE_NAMES:
        named |= set(spec.search[key].values) if key in spec.search else set()
    return sorted(name for name in named if name and own_code.is_own_code(name))


def _change(tree: Any, keys: tuple[str, ...], folders: tuple[Path, ...]) -> Any:
    """A copy of `tree` with the value under `keys` made absolute, where there is one."""
    if not isinstance(tree, dict) or keys[0] not in tree:
        return tree
    value = tree[keys[0]]
    if len(keys) > 1:
        return {**tree, keys[0]: _change(value, keys[1:], folders)}
    if keys[0] == "class_names":
        return {**tree, "class_names": _class_names(value, folders)}
    if isinstance(value, (list, tuple)):
        return {**tree, keys[0]: [_absolute(keys[0], item, folders) for item in value]}
    return {**tree, keys[0]: _absolute(keys[0], value, folders)}


def _absolute(key: str, name: Any, folders: tuple[Path, ...]) -> Any:
    if not isinstance(name, str) or not own_code.is_own_code(name):
        return name
    place, _, function = name.removeprefix(own_code.PREFIX).rpartition(":")
    return f"{find_file(key, place, folders)}:{function}" if place.endswith(".py") else name


def _class_names(value: Any, folders: tuple[Path, ...]) -> Any:
    """One name per line of a text file, in label order; blank lines at the end do not count."""
    if not isinstance(value, str) or not value.endswith(".txt"):
        return value
    path = find_file("class_names", value, folders)
    try:
        return path.read_text(encoding="utf-8").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: `class names are UTF-8 text` must hold, but got: {error}."
        ) from error
