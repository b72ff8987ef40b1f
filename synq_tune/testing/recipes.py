"""What a recipe promises."""

from __future__ import annotations

from pathlib import Path

from synq_tune.recipes.merge import load_space, read_recipe
from synq_tune.testing.promise import promised


def check_recipe(recipe: str | Path) -> None:
    """Check a recipe by name or file: it loads, searches nothing, and makes a valid trial.

    Raises:
        AssertionError: a promise is broken; the text says which.
    """
    with promised("the recipe loads and has no search"):
        read_recipe(str(recipe))
    with promised("the recipe makes a valid study"):
        spec = load_space("digits_w3a3", [f"recipe={recipe}"])
        for number in range(max(len(d.values) for d in spec.search.values())):
            values = {k: d.values[number % len(d.values)] for k, d in spec.search.items()}
            spec.trial_config(values)
