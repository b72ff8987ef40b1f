"""The state dicts inside a checkpoint: a trainer's file may hold several, some of them averages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from synq_tune.models.inert_pickle import Inert

_DEPTH = 6
_AVERAGES = re.compile(r"(?<![a-z])(ema|swa|averaged?|avg|shadow)(?![a-z])", re.IGNORECASE)
_ORDER = (
    "state_dict", "model", "model_state_dict", "net", "network", "weights", "params", "model_state",
    "module", "teacher", "student", "backbone", "encoder", "generator",
)  # fmt: skip
"""Which of several that fit is read, where none of them is an average; others follow."""


@dataclass(frozen=True, eq=False)
class Nest:
    """One dictionary of tensors in a checkpoint."""

    path: tuple[str, ...]
    """Keys that lead to it; empty at the top."""
    tensors: dict[str, Tensor]

    @property
    def name(self) -> str:
        """The path as a user writes it in `teacher.weights.key`."""
        return ".".join(self.path)

    @property
    def rank(self) -> tuple[bool, int, int]:
        """Order of preference: averages, then well-known names, then what lies less deep."""
        known = [_ORDER.index(part) for part in self.path if part in _ORDER]
        return not is_average(self.name), min(known, default=len(_ORDER)), len(self.path)


def is_average(name: str) -> bool:
    """Whether a name says that the weights are averaged over training, such as `model_ema`."""
    return _AVERAGES.search(name.replace("_", " ")) is not None


def find_nests(content: Any) -> list[Nest]:
    """Every dictionary with tensors under text keys, at most `_DEPTH` dictionaries deep.

    A dictionary that appears twice counts once, under the shorter path.
    """
    found: list[Nest] = []
    queue: list[tuple[tuple[str, ...], Any]] = [((), content)]
    seen: set[int] = set()
    for path, value in queue:
        pairs = _pairs(value)
        if pairs is None or id(value) in seen:
            continue
        seen.add(id(value))
        named = {str(k): v for k, v in pairs.items() if isinstance(k, str)}
        tensors = {key: v for key, v in named.items() if isinstance(v, Tensor)}
        if tensors:
            found.append(Nest(path, tensors))
        if len(path) < _DEPTH:
            queue += [((*path, key), child) for key, child in named.items()]
    return found


def _pairs(value: Any) -> dict[Any, Any] | None:
    """Contents of a mapping, also of a foreign class that behaved like one."""
    if isinstance(value, Inert):
        return value.pairs or None
    return value if isinstance(value, dict) else None


def find_modules(content: Any) -> list[str]:
    """Class names of whole networks that were pickled instead of their tensors."""
    return [i.name for i in _inerts(content) if _is_module(i)]


def find_foreign(content: Any) -> list[str]:
    """Class names of what is neither a tensor nor plain data, without repeats."""
    return list(dict.fromkeys(i.name for i in _inerts(content)))


def _is_module(value: Inert) -> bool:
    state = value.state[0] if isinstance(value.state, tuple) and value.state else value.state
    return isinstance(state, dict) and "_parameters" in state and "_modules" in state


def _inerts(content: Any) -> list[Inert]:
    """Foreign objects outside one another."""
    found: list[Inert] = []
    queue, seen = [content], set()
    for value in queue:
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Inert):
            found.append(value)
            queue += list(value.pairs.values())
        elif isinstance(value, dict):
            queue += list(value.values())
        elif isinstance(value, (list, tuple)):
            queue += list(value)
    return found
