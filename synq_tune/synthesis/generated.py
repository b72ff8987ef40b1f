"""What a synthesis method hands back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class GeneratedImages:
    """A dataset before it is stored: training part first, hold-out last."""

    images: Tensor
    """(N, C, H, W) float16, normalised; N = num_images + num_holdout."""
    labels: Tensor
    """(N,) int64."""
    notes: dict[str, Any]
    """What the manifest says beside the settings, such as the batches' final losses."""
