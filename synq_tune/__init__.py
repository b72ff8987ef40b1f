"""Distributed hyperparameter search for zero-shot quantization of image classifiers.

From Python: `from synq_tune import search, load_space, Study`.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what a type checker sees behind the lazy names
    from synq_tune.api import Study, search
    from synq_tune.config.load import load_space

__version__ = "0.1.0"

__all__ = ["Study", "__version__", "load_space", "search"]

_PLACES = {"Study": "synq_tune.api", "load_space": "synq_tune.config.load"}


class SearchPackage(ModuleType):
    """The room `synq_tune.search`, which can be called: `search("digits_w3a3")` runs a study.

    A function of that name would be hidden by the room as soon as anything imports it.
    """

    def __call__(self, space: Any = None, sets: Any = (), **options: Any) -> Study:
        """Run a study and return it: see `synq_tune.api.search`."""
        api = importlib.import_module("synq_tune.api")
        return api.search(space, sets, **options)


def __getattr__(name: str) -> Any:
    """What is imported when it is asked for: importing the package itself costs nothing."""
    if name == "search":
        return importlib.import_module("synq_tune.search")
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
