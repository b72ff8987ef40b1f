"""Best-known configurations, one YAML per space in `search_spaces/best/`, and how a study starts
from one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from synq_tune.config import FORMAT, FineTune, Settings, yaml12
from synq_tune.config.paths import find_file
from synq_tune.errors import SearchSpaceError, lookup

BEST_DIR = (Path(__file__).parents[1] / "search_spaces" / "best").resolve()


class Measured(Settings):
    """Where a configuration's accuracy comes from."""

    top1: tuple[float, ...] = Field(min_length=1)
    """Percent on images that did not choose it, one value per seed, after the last epoch."""
    seeds: tuple[int, ...] = Field(min_length=1)
    interval: tuple[float, float]
    """95 % of the mean over seeds, Student's t."""
    full_precision: float
    num_images: int = Field(ge=1)
    command: str
    machine: str
    versions: dict[str, str]


class BestKnown(Settings):
    """One file of `search_spaces/best/`."""

    format: Literal[1] = FORMAT
    space: str
    finetune: dict[str, Any]
    """Fields of `finetune` that differ from the space, or are searched there."""
    measured: Measured


def read_best_known(name: str) -> BestKnown:
    """The configuration of that name, or in a file ending in `.yaml`.

    Raises:
        SearchSpaceError: there is none, or a key or value is wrong.
    """
    path = _path(name)
    try:
        best = BestKnown.model_validate(yaml12.read(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise SearchSpaceError(f"{path}: {key}: {first['msg']}.") from error
    for key in best.finetune:
        lookup(f"{path}: field of finetune", key, FineTune.model_fields)
    return best


def _path(name: str) -> Path:
    if name.endswith((".yaml", ".yml")):
        return find_file("best-known configuration", name, (Path(),))
    names = [path.stem for path in BEST_DIR.glob("*.yaml")]
    return BEST_DIR / f"{lookup('best-known configuration', name, names)}.yaml"


def tried_first(tree: Mapping[str, Any], best: BestKnown) -> dict[str, Any]:
    """A merged tree whose first configuration is the best-known one.

    Fields that the space does not search, or that `--set` fixed, are `finetune`'s already.
    """
    searched = tree.get("search") or {}
    first = {key: value for key, value in best.finetune.items() if key in searched}
    study = tree.get("study") or {}
    return {**tree, "study": {**study, "first": [first, *(study.get("first") or ())]}}
