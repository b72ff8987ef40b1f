"""What can be asked of SynQ's paper: its tables and figures, a YAML file each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from synq_tune.config import Settings, yaml12
from synq_tune.config.load import SPACES_DIR
from synq_tune.config.settings import Text
from synq_tune.errors import SearchSpaceError, lookup
from synq_tune.experiments.paper_figure import PaperFigure
from synq_tune.experiments.paper_ranges import PaperRanges
from synq_tune.experiments.paper_table import PaperTable

TABLES_DIR = SPACES_DIR / "tables"


class Nothing(Settings):
    """A table or figure in which nothing was measured."""

    title: Text
    """What it is."""
    says: Text
    """What there is instead."""


Item = PaperTable | PaperFigure | PaperRanges | Nothing


def item_names() -> list[str]:
    """`table1` … `table10`, `figure1` … `figure13`: what can be asked for, in the paper's order."""
    found = [path.stem for path in TABLES_DIR.glob("*.yaml") if re.search(r"\d$", path.stem)]
    return sorted(found, key=lambda name: (name[:1] != "t", int(re.sub(r"\D", "", name))))


def read_item(name: str) -> Item:
    """The table or figure of that name.

    Raises:
        InputError: there is none, or its file is damaged.
    """
    path: Path = TABLES_DIR / f"{lookup('table or figure', name, item_names())}.yaml"
    tree = yaml12.read(path)
    try:
        return _shape(tree).model_validate(tree)
    except ValidationError as error:
        raise SearchSpaceError(f"{path}: {error.errors()[0]['msg']}.") from error


def _shape(tree: dict[str, Any]) -> type[Item]:
    """Which of the shapes a file has, by a key that no other has."""
    shapes = {"says": Nothing, "ranges": PaperRanges, "kind": PaperFigure}
    return next((shape for key, shape in shapes.items() if key in tree), PaperTable)
