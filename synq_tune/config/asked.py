"""A recipe asked for by name, with `--set recipe=`: its method, on the space's data and budget.

A recipe that a space names lies under the space. One that is asked for lies over it: what it states
is what runs, fields of `finetune` and `reconstruct` that it leaves out have their defaults, and its
own ranges are searched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from synq_tune.config import Domain, FineTune, Reconstruct
from synq_tune.config.spec import WIDTHS
from synq_tune.errors import SearchSpaceError

BUDGET = ("epochs", "batch_size", "steps_per_epoch", "calibration_batches")
"""Fields of `finetune` that say how much is trained, not how."""
KEPT = (*BUDGET, "cam_layer")
"""Those that stay the space's unless the recipe states them; a layer's name is its network's."""
FITTED = ("d0", "cam")
"""Searched where and as the space says: D0 counts frequency bins of its images, and whether `cam`
can be asked depends on its network."""
KEPT_OF_RECONSTRUCT = ("blocks", "memory_budget")
"""The same of `reconstruct`: names of blocks are the network's, gigabytes the machine's."""
_RECONSTRUCT = "reconstruct."
_FOR_TRANSFORMERS = {"minmax": "vit_minmax", "lsq": "vit_lsq"}
"""The same idea on a transformer, whose activation functions are a tenth of what its layers
read."""

Tree = Mapping[str, Any]


def finetune_of(own: Tree, recipe: Tree) -> dict[str, Any]:
    """`finetune` of a study that asked for a recipe; the method is the recipe's.

    Args:
        own: `finetune` of the study so far.
        recipe: the recipe's whole tree.
    """
    return _section("finetune", own, recipe, KEPT)


def reconstruct_of(own: Tree, recipe: Tree) -> dict[str, Any]:
    """`reconstruct` of a study that asked for a recipe; off unless the recipe states it.

    Args:
        own: `reconstruct` of the study so far.
        recipe: the recipe's whole tree.
    """
    return _section("reconstruct", own, recipe, KEPT_OF_RECONSTRUCT)


def _section(name: str, own: Tree, recipe: Tree, kept: tuple[str, ...]) -> dict[str, Any]:
    """What the recipe states of a section, over what the study keeps of its own."""
    return {**{key: own[key] for key in kept if key in own}, **(recipe.get(name) or {})}


def search_of(own: Tree, recipe: Tree) -> dict[str, Any]:
    """`search` of a study that asked for a recipe: every range holds the recipe's own value.

    Ranges of a budget stay, and so do those of FITTED that hold the recipe's value, where it
    searches them; everything else is searched as the recipe says. A study that searches nothing
    goes on searching nothing.

    Args:
        own: `search` of the study so far.
        recipe: the recipe's whole tree.
    """
    if not own:
        return {}
    values, ranges = _values(recipe), recipe.get("search") or {}
    stays = _stays(ranges, "reconstruct" in recipe)
    kept = {
        k: d for k, d in own.items() if k in stays and (k not in values or _holds(d, values[k]))
    }
    stated = {k: d for k, d in ranges.items() if k not in FITTED or (k in own and k not in kept)}
    return {key: (stated | kept)[key] for key in (*own, *stated) if key in stated | kept}


def _stays(ranges: Tree, reconstructs: bool) -> set[str]:
    """Keys whose ranges a study may keep: all of the recipe's stages where it states no range.

    Widths are no part of a method.
    """
    if ranges:
        return {*KEPT, *WIDTHS, *(key for key in FITTED if key in ranges)}
    stage = Reconstruct.model_fields if reconstructs else ()
    return {*FineTune.model_fields, *WIDTHS, *(_RECONSTRUCT + key for key in stage)}


def quantizer_of(own: str | None, stated: str | None) -> str | None:
    """The recipe's quantizer, in the form for transformers where the space's own is for those."""
    if stated is None:
        return own
    return _FOR_TRANSFORMERS.get(stated, stated) if (own or "").startswith("vit_") else stated


def check_sections(tree: Tree, where: str) -> None:
    """`finetune`, `reconstruct` and `search` are mappings, where they are given.

    Raises:
        SearchSpaceError: one is not; the message starts with `where`.
    """
    for key in ("finetune", "reconstruct", "search"):
        if not isinstance(tree.get(key) or {}, Mapping):
            raise SearchSpaceError(
                f"{where}: `{key} is a mapping` must hold, but got {key}={tree[key]!r}."
            )


def check_ranges(recipe: Tree, where: str) -> None:
    """Every range of a recipe holds the recipe's own value.

    Raises:
        SearchSpaceError: one does not; the message starts with `where`.
    """
    check_sections(recipe, where)
    values = _values(recipe)
    for key, domain in (recipe.get("search") or {}).items():
        if key in values and not _holds(domain, values[key]):
            raise SearchSpaceError(
                f"{where}: `search.{key} holds the recipe's own {key}` must hold, but got "
                f"{key}={values[key]!r}."
            )


def _values(recipe: Tree) -> dict[str, Any]:
    """The recipe's own value of each field of its method, and of others that it states."""
    defaults = FineTune().model_dump(mode="json")
    method = {key: value for key, value in defaults.items() if key not in KEPT}
    stage = Reconstruct().model_dump(mode="json") | (recipe.get("reconstruct") or {})
    named = {_RECONSTRUCT + key: value for key, value in stage.items()}
    return {**method, **named, **(recipe.get("finetune") or {})}


def _holds(domain: Any, value: Any) -> bool:
    """Whether a range as it was read holds a value; a wrong range is the validation's to refuse."""
    try:
        return Domain.model_validate(domain).contains(value)
    except ValidationError:
        return True
