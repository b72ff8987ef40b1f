"""Seeds that follow from the study's seed alone, the same on every machine and in every process."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from synq_tune.store import canonical_json

if TYPE_CHECKING:
    import torch


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2^31) for whatever `parts` name."""
    digest = hashlib.sha256(canonical_json(parts).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def batch_generator(seed: int, stage: str, number: int) -> torch.Generator:
    """The CPU generator of a synthesis batch: the same whatever ran before it, on every device.

    Stored datasets were made with this scheme, which is older than `derive_seed`.
    """
    import torch

    digest = hashlib.sha256(f"{seed}/{stage}/{number}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7]))


def address_seed(address: str, part: int = 0) -> int:
    """The seed of what is drawn once for a dataset, in [0, 2^32]; stored views were drawn with it.

    Args:
        address: of the dataset, hexadecimal.
        part: 0, 1, … for draws that must differ.
    """
    return int(address[:8], 16) + part


def trial_seed(study_seed: int, number: int, repeat: int = 0) -> int:
    """Seed of search trial `number`, in [0, 2^31).

    Args:
        study_seed: `study.seed`.
        number: of the trial, from 0.
        repeat: 0 for the trial itself, 1, 2, … for its confirmations.
    """
    return derive_seed("trial", study_seed, number, repeat)
