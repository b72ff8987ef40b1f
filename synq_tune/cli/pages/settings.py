"""`docs/settings.md`: every setting of a study, from the classes of `synq_tune.config`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic.fields import FieldInfo

from synq_tune import names
from synq_tune.cli.pages.note import head
from synq_tune.config import Settings, StudySpec
from synq_tune.config.load import read_recipe
from synq_tune.config.nulls import members
from synq_tune.config.settings import NameOf
from synq_tune.text_table import markdown

_MEANING = """\
A space is a YAML file of these keys. What it leaves out comes from its recipe, and what that leaves out has
the default below. `--set SECTION.KEY=VALUE` changes one for one study. Unknown keys, and values out of range,
are refused before any work.

Numbers are those of YAML 1.2; `null` stands for nothing.
"""
_HEADS = ("key", "value", "default", "meaning")
_RECIPE = "synq"
_Schema = Mapping[str, Any]


def settings_page() -> str:
    """The page's text."""
    schema = StudySpec.model_json_schema(by_alias=True)
    recipe = read_recipe(_RECIPE)
    lines = [*head("Settings", "the classes in synq_tune/config/"), _MEANING]
    for path, shape in _sections():
        inside = schema if shape is StudySpec else schema["$defs"][shape.__name__]
        lines += _section(path, shape, inside, recipe.get(path) or {})
    return "\n".join(lines)


def _sections() -> Iterator[tuple[str, type[Settings]]]:
    """(key path, class) of every section, each before those inside it."""
    yield "", StudySpec
    yield from _inner("", StudySpec)


def _inner(path: str, shape: type[Settings]) -> Iterator[tuple[str, type[Settings]]]:
    for key, field in shape.model_fields.items():
        inner = _shape(field)
        if inner is not None:
            place = f"{path}.{key}" if path else key
            yield place, inner
            yield from _inner(place, inner)


def _shape(field: FieldInfo) -> type[Settings] | None:
    """The class of a section, or of each value of `search`; None of a plain field."""
    for member in members(field.annotation):
        for one in (member, *getattr(member, "__args__", ())):
            if isinstance(one, type) and issubclass(one, Settings):
                return one
    return None


def _section(
    path: str, shape: type[Settings], schema: _Schema, recipe: Mapping[str, Any]
) -> Iterator[str]:
    title = f"`{path}.KEY`" if path == "search" else f"`{path}`" if path else "A study"
    yield from (f"## {title}", "", _line(shape.__doc__), "")
    heads = (*_HEADS[:3], f"recipe `{_RECIPE}`", _HEADS[3]) if recipe else _HEADS
    rows = (_row(key, field, schema, recipe) for key, field in shape.model_fields.items())
    yield from markdown(heads, rows)
    yield ""


def _row(
    name: str, field: FieldInfo, schema: _Schema, recipe: Mapping[str, Any]
) -> tuple[str, ...]:
    key = field.alias or name
    own = schema["properties"][key]
    is_section = _shape(field) is not None
    value = "a section, see below" if is_section else _family(field) or _value(own)
    if is_section and _is_null_allowed(own):
        value += ", or `null`"
    needed = field.is_required()
    default = "needed" if needed else "" if is_section else f"`{_yaml(own.get('default'))}`"
    states = [f"`{_yaml(recipe[key])}`" if key in recipe else ""] if recipe else []
    return f"`{key}`", value, default, *states, _line(field.description)


def _family(field: FieldInfo) -> str:
    """The names that a field of names knows; nothing for another."""
    families = [mark.family for mark in field.metadata if isinstance(mark, NameOf)]
    if not families:
        return ""
    listed = ", ".join(f"`{name}`" for name in names.known(families[0]))
    own = "the place of your own code"
    empty = ", or `null`" if type(None) in members(field.annotation) else ""
    return f"{listed}, or {own}{empty}" if listed else f"{own}{empty}"


def _value(schema: _Schema) -> str:
    """What a field may be, in words."""
    if "anyOf" in schema:
        return ", or ".join(_value(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = schema.get("type")
    if kind == "array":
        return _list(schema)
    if kind == "object":
        inner = schema.get("additionalProperties")
        return f"mapping to {_value(inner)}" if isinstance(inner, dict) else "mapping"
    words = {
        "null": "`null`",
        "boolean": "`true`, `false`",
        "integer": "whole number",
        "number": "number",
        "string": "text",
    }
    return " ".join([words.get(str(kind), "any value"), *_range(schema)])


def _list(schema: _Schema) -> str:
    if "prefixItems" in schema:
        inner = {_value(one) for one in schema["prefixItems"]}
        return f"list of {len(schema['prefixItems'])}, each {' or '.join(sorted(inner))}"
    return f"list, each {_value(schema['items'])}"


def _range(schema: _Schema) -> Iterator[str]:
    bounds = (
        ("exclusiveMinimum", "> "),
        ("minimum", "≥ "),
        ("exclusiveMaximum", "< "),
        ("maximum", "≤ "),
    )
    found = [f"{sign}{schema[key]:,}" for key, sign in bounds if key in schema]
    if found:
        yield " and ".join(found)


def _is_null_allowed(schema: _Schema) -> bool:
    return {"type": "null"} in schema.get("anyOf", ())


def _yaml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value


def _line(text: str | None) -> str:
    return " ".join((text or "").split())
