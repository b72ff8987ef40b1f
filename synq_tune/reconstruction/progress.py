"""What a reconstruction is given and gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from synq_tune.models.teacher import LoadedTeacher


@dataclass
class Progress:
    """One more part of a reconstruction is done."""

    position: int
    """Number of parts done, from 1."""
    state: Callable[[], dict[str, Tensor]] = dict
    """What the reconstruction needs besides the student to go on behind this part."""
    losses: dict[str, float] = field(default_factory=dict)
    """By name; a trial reports them with its next evaluation."""


@dataclass(frozen=True)
class Position:
    """Where a reconstruction goes on."""

    parts: int = 0
    """Parts done; 0 at the start."""
    state: dict[str, Tensor] = field(default_factory=dict)
    """What `Progress.state` gave behind them."""


class Material(Protocol):
    """What all trials share, as far as a reconstruction needs it."""

    teacher: LoadedTeacher
    device: torch.device
