"""What is measured on a study's model and images for its page, beyond what the ledger knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Evidence:
    """Each part is None where it was not measured; `missing` says why."""

    missing: Mapping[str, str] = field(default_factory=dict)
    """Name of a part → why it is not there, a sentence."""
