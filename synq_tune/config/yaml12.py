"""Read YAML with the numbers and booleans of YAML 1.2 (`1e-5` is a number, `on` is a word)."""

from __future__ import annotations

import copy
import math
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from synq_tune.errors import SearchSpaceError

_MOST_VALUES = 100_000
"""In a space; the largest table of settings has a few hundred."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with the core schema of YAML 1.2; a key given twice is an error."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key!r} is given twice", problem_mark=node.start_mark
                )
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.nan",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first
    )
# PyYAML's own constructor reads a leading zero as octal (YAML 1.1) and knows no `0o`.
_Loader.add_constructor(
    "tag:yaml.org,2002:int",
    lambda loader, node: int(node.value, 0 if node.value[:2] in ("0o", "0x") else 10),
)


def parse(text: str, where: str) -> Any:
    """Parse one YAML document; `where` names it in errors.

    Raises:
        SearchSpaceError: it is no YAML, or too much for one: nested too deeply, a number of
            thousands of digits, or aliases of aliases that few lines make millions of values of.
    """
    try:
        # A recipe is read for every space that builds on it; whoever gets a tree may change it.
        return copy.deepcopy(_parsed(text))
    except RecursionError:
        raise SearchSpaceError(f"{where}: not valid YAML: it is nested too deeply.") from None
    except (ValueError, TypeError) as error:
        raise SearchSpaceError(f"{where}: not valid YAML: {error}.") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise SearchSpaceError(f"{where}{line}: not valid YAML: {error.problem}.") from error


@lru_cache(maxsize=256)
def _parsed(text: str) -> Any:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > _MOST_VALUES:
            raise ValueError(f"its aliases make more than {_MOST_VALUES:,} values of it")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _size(node: yaml.Node, known: dict[int, float]) -> float:
    """Values of a node with its aliases written out; infinite where one stands within itself."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = math.inf
        pairs = isinstance(node, yaml.MappingNode)
        parts = [part for pair in node.value for part in pair] if pairs else node.value
        known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(node)]


def read(path: Path) -> dict[str, Any]:
    """Read a file that holds one mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SearchSpaceError(f"{path}: cannot be read: {error}.") from error
    document = parse(text, str(path))
    if not isinstance(document, dict):
        got = "nothing" if document is None else f"a {type(document).__name__}"
        raise SearchSpaceError(
            f"{path}: `the file is a mapping of keys to values` must hold, but got {got}."
        )
    return document
