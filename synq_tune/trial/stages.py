"""The stages of a trial between quantization and evaluation: clip, calibrate, reconstruct,
fine-tune."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

from synq_tune.config import Reconstruct
from synq_tune.errors import InputError
from synq_tune.names import resolve
from synq_tune.trial.assets import Assets
from synq_tune.views.source import Source


@dataclass
class Progress:
    """One more part of a reconstruction is done."""

    position: int
    """Number of parts done, from 1."""
    state: Callable[[], dict[str, Tensor]] = dict
    """What the reconstruction needs besides the student to go on behind this part."""
    losses: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Position:
    """Where a reconstruction goes on."""

    parts: int = 0
    """Parts done; 0 at the start."""
    state: dict[str, Tensor] = field(default_factory=dict)
    """What `Progress.state` gave behind them."""


Reconstruction = Callable[
    [fx.GraphModule, Source, Assets, Reconstruct, Position], Iterator[Progress]
]
"""(student, source, assets, config, position) → progress after each part; the student changes in
place.

The student is calibrated and in evaluation mode. On a resumed trial it is as it was behind
`position.parts`, in its state but for what the reconstruction itself put into it.
"""


def reconstruct(
    student: fx.GraphModule,
    source: Source,
    assets: Assets,
    config: Reconstruct,
    position: Position,
) -> Iterator[Progress]:
    """Run the reconstruction that `config.method` names, if it is on.

    Raises:
        InputError: the user's own function yields something else than `Progress`.
    """
    if not config.is_on:
        return
    method: Reconstruction = resolve("reconstruction", config.method)
    with torch.enable_grad():
        for row in method(student, source, assets, config, position):
            if not isinstance(row, Progress):
                raise InputError(
                    f"reconstruct.method {config.method}: `it yields synq_tune.trial.stages.Progress` "
                    f"must hold, but got {type(row).__name__}."
                )
            yield row
