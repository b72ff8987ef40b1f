"""Seeds that follow from the study's seed alone, the same on every machine and in every process."""

from __future__ import annotations

import hashlib

from synq_tune.store import canonical_json


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2^31) for whatever `parts` name."""
    digest = hashlib.sha256(canonical_json(parts).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def trial_seed(study_seed: int, number: int, repeat: int = 0) -> int:
    """Seed of search trial `number`, in [0, 2^31).

    Args:
        study_seed: `study.seed`.
        number: of the trial, from 0.
        repeat: 0 for the trial itself, 1, 2, … for its confirmations.
    """
    return derive_seed("trial", study_seed, number, repeat)
