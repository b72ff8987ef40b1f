"""What every synthesis method is given and what it hands back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from synq_tune.config import Synthesis
from synq_tune.models.teacher import LoadedTeacher


@dataclass(frozen=True)
class GeneratedImages:
    """A dataset before it is stored: training part first, hold-out last."""

    images: Tensor
    """(N, C, H, W) float16, normalised; N = num_images + num_holdout."""
    labels: Tensor
    """(N,) int64."""
    notes: dict[str, Any]
    """What the manifest says beside the settings, such as the batches' final losses."""


Draft = GeneratedImages
"""The name that code written for version 0.1 asks for."""


@dataclass(frozen=True)
class Synthesizer:
    """A synthesis method."""

    synthesize: Callable[[LoadedTeacher, Synthesis, Path, bool], GeneratedImages]
    """(teacher, config, folder for work in progress, show progress) → draft."""
    settings: Callable[[Synthesis], dict[str, Any]]
    """The part of the settings that changes the result, for its content address."""
    check: Callable[[LoadedTeacher], object] = lambda teacher: None
    """Raises InputError where the teacher lacks what the method asks it about."""
