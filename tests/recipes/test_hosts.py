"""SynQ on another method is that method, but for SynQ's filter, maps and mask."""

from __future__ import annotations

import pytest

from synq_tune.config import FineTune
from synq_tune.config.load import RECIPES_DIR, names_in, read_recipe

OTHERS = {"genie", "zeroq"}
"""Their own recipes train nothing."""
HOSTS = [
    name
    for name in names_in(RECIPES_DIR)
    if (RECIPES_DIR / f"{name}_synq.yaml").is_file() and name not in OTHERS
]
IDEAS = {"d0", "tau", "cam", "lambda_cam", "lambda_ce", "mask_by"}


def _trained(recipe: str) -> dict[str, object]:
    return FineTune.model_validate(read_recipe(recipe)["finetune"]).model_dump()


@pytest.mark.parametrize("host", HOSTS)
def test_only_the_three_ideas_are_added(host: str) -> None:
    """Images are the host's, training differs in nothing else, and all three are on."""
    plain, more = (read_recipe(name) for name in (host, f"{host}_synq"))
    assert plain.get("synthesis") == more.get("synthesis")
    own, added = _trained(host), _trained(f"{host}_synq")
    assert {key for key in own if own[key] != added[key]} <= IDEAS
    assert own["d0"] is None and own["lambda_cam"] == 0
    assert added["d0"] and added["lambda_cam"] and added["lambda_ce"] and added["tau"] is not None
    assert added["mask_by"] == "label"


def test_zeroqs_images_are_the_same_with_synq() -> None:
    """Where the host trains nothing, its images are what is shared."""
    plain, more = (read_recipe(name) for name in ("zeroq", "zeroq_synq"))
    assert plain["synthesis"] == more["synthesis"]
    assert plain["finetune"]["epochs"] == 0 and "epochs" not in more["finetune"]
