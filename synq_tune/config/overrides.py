"""What a study changes of the recipe it names, in one line for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from synq_tune.config import FineTune, StudySpec
from synq_tune.config.asked import KEPT
from synq_tune.config.load import read_recipe
from synq_tune.errors import SearchSpaceError


def overrides(spec: StudySpec) -> dict[str, tuple[Any, Any]]:
    """`key` → (the recipe's value, the study's), where they differ.

    All of `finetune` but its budget, and whatever else the recipe states. Keys of `finetune` are
    short.

    Raises:
        SearchSpaceError: the recipe's file is not there any more.
    """
    recipe = read_recipe(spec.recipe)
    stated = recipe.get("finetune") or {}
    own = spec.finetune.model_dump(mode="json")
    asked = FineTune.model_validate({**own, **_defaults(), **stated}).model_dump(mode="json")
    changed = {k: (asked[k], own[k]) for k in own if asked[k] != own[k]}
    return changed | _outside_finetune(spec, recipe)


def overrides_line(spec: StudySpec) -> str:
    """`recipe    synq with lr 0.01 → 0.003, …`; only the name where nothing is changed."""
    name = Path(spec.recipe).name
    try:
        changed = overrides(spec)
    except (SearchSpaceError, ValidationError) as error:  # its file is the user's, and may change
        return f"recipe    {name} ({str(error).splitlines()[0]})"
    shown = ", ".join(f"{k} {_text(old)} → {_text(new)}" for k, (old, new) in changed.items())
    return f"recipe    {name}" + (f" with {shown}" if shown else "")


def _defaults() -> dict[str, Any]:
    """Of what the recipe may leave out; the budget and the network's layer are the study's."""
    return {k: v for k, v in FineTune().model_dump(mode="json").items() if k not in KEPT}


def _outside_finetune(spec: StudySpec, recipe: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    changed = {}
    tree = spec.model_dump(mode="json", by_alias=True)
    for key, value in recipe.items():
        if key in ("format", "finetune", "search"):
            continue
        pairs = value.items() if isinstance(value, dict) else [(None, value)]
        for inner, old in pairs:
            new = tree[key] if inner is None else tree[key][inner]
            if new != old:
                changed[key if inner is None else f"{key}.{inner}"] = (old, new)
    return changed


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
