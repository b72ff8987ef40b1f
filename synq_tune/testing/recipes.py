"""What a recipe promises."""

from __future__ import annotations

from pathlib import Path

from synq_tune.config.load import load_space, read_recipe
from synq_tune.testing.promise import promised


def check_recipe(recipe: str | Path) -> None:
    """Check a recipe by name or file: it loads, its ranges hold its values, and it makes valid
    trials.

    Raises:
        AssertionError: a promise is broken; the text says which.
    """
    with promised("the recipe loads, and its ranges hold its own values"):
        read_recipe(str(recipe))
    with promised("the recipe makes a valid study"):
        spec = load_space("digits_w3a3", [f"recipe={recipe}"])
        for number in range(max((len(d.values) for d in spec.search.values()), default=1)):
            values = {k: d.values[number % len(d.values)] for k, d in spec.search.items()}
            spec.trial_config(values)
