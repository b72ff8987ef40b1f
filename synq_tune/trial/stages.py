"""The stages of a trial between quantization and evaluation: clip, calibrate, reconstruct,
fine-tune."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import fx

from synq_tune.config import Reconstruct
from synq_tune.errors import InputError
from synq_tune.names import resolve
from synq_tune.reconstruction.progress import Position, Progress
from synq_tune.trial.assets import Assets
from synq_tune.views.source import Source

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
