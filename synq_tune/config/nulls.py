"""What `null` means: a field's own null where it has one, else as if the key had not been
written."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any

from synq_tune.config import Settings, StudySpec

_MISSING = object()


def without_nulls(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A file's tree without the keys whose null is no value of theirs, such as an empty
    `search:`."""
    return _pruned(tree, StudySpec)


def unset_path(assignment: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The keys of an assignment that unsets, such as `teacher.weights=null`; None of any other."""
    path: tuple[str, ...] = ()
    value: Any = assignment
    annotation: Any = StudySpec
    while isinstance(value, Mapping) and len(value) == 1:
        ((key, value),) = value.items()
        path, annotation = (*path, str(key)), inner_annotation(annotation, str(key))
    return path if value is None and not takes_null(annotation) else None


def unset(
    tree: Mapping[str, Any], below: Mapping[str, Any], path: tuple[str, ...]
) -> dict[str, Any]:
    """`tree` with what `below` (the recipe) says at `path`, or without that key."""
    first, *rest = path
    changed = dict(tree)
    under = below.get(first, _MISSING)
    if not rest:
        if under is _MISSING:
            changed.pop(first, None)
        else:
            changed[first] = under
    elif isinstance(changed.get(first), Mapping):
        nested = under if isinstance(under, Mapping) else {}
        changed[first] = unset(changed[first], nested, tuple(rest))
    return changed


def _pruned(tree: Mapping[str, Any], annotation: Any) -> dict[str, Any]:
    kept = {}
    for key, value in tree.items():
        inner = inner_annotation(annotation, str(key))
        if isinstance(value, Mapping):
            kept[key] = _pruned(value, inner)
        elif value is not None or takes_null(inner):
            kept[key] = value
    return kept


def members(annotation: Any) -> list[Any]:
    """The parts of a union, without what `Annotated` adds."""
    if typing.get_origin(annotation) is typing.Annotated:
        return members(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [m for part in typing.get_args(annotation) for m in members(part)]
    return [annotation]


def inner_annotation(annotation: Any, key: str) -> Any:
    """What a field of settings, or a value of a dictionary, may be; Any where it is not known."""
    for member in members(annotation):
        if isinstance(member, type) and issubclass(member, Settings):
            fields = {f.alias or name: f for name, f in member.model_fields.items()}
            return fields[key].annotation if key in fields else Any
        if typing.get_origin(member) is dict:
            return typing.get_args(member)[1]
    return Any


def takes_null(annotation: Any) -> bool:
    return any(member in (Any, None, types.NoneType) for member in members(annotation))
