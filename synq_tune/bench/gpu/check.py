"""Every part of a visit to a GPU, at the sizes of a device or at tiny ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from synq_tune.bench.gpu.agreement import agreement
from synq_tune.bench.gpu.rows import Row
from synq_tune.bench.gpu.sharing import sharing
from synq_tune.bench.gpu.steps import steps
from synq_tune.bench.gpu.synthesis import synthesis
from synq_tune.config import StudySpec
from synq_tune.config.load import load_space

_SMALL = "cifar_resnet20_w4a4"
_SPACES = (_SMALL, "resnet18_w4a4", "efficientnet_lite0_w4a4")
_FULL = {_SMALL: 256, "resnet18_w4a4": 16, "efficientnet_lite0_w4a4": 16}
"""Batch sizes of the paper."""
_SYNTHESIS = 64
"""Images of a synthesis batch."""


@dataclass(frozen=True)
class Sizes:
    """How much is run."""

    batches: dict[str, int]
    """Space → images of a trial's batch."""
    synthesis: int
    rounds: int
    processes: tuple[int, ...]
    seconds: float
    """For which each number of processes runs."""


FULL = Sizes(_FULL, _SYNTHESIS, rounds=20, processes=(1, 2, 4, 8), seconds=5.0)
TINY = Sizes({_SMALL: 4}, 4, rounds=1, processes=(1, 2), seconds=0.5)


def check(device: torch.device, sizes: Sizes, minutes: float) -> Iterator[Row]:
    """The rows of all parts, as they come; a part that would begin too late is left out, and said.

    Args:
        device: what is visited.
        sizes: FULL, or TINY to go through everything on a CPU.
        minutes: after which no further part begins.
    """
    end = time.monotonic() + 60 * minutes
    specs = [_spec(name, batch, sizes.synthesis) for name, batch in sizes.batches.items()]
    for part, run in _parts(specs, device, sizes).items():
        began = time.monotonic()
        if began > end:
            yield Row(part, "left out", None, is_right=False, note=f"{minutes:g} minutes are over")
            continue
        yield from run()
        yield Row(part, "time it took", time.monotonic() - began, "s")


def _parts(
    specs: list[StudySpec], device: torch.device, sizes: Sizes
) -> dict[str, Callable[[], Iterator[Row]]]:
    return {
        "agreement": lambda: agreement(specs[0], device),
        "step": lambda: steps(specs, device, sizes.rounds),
        "synthesis": lambda: synthesis(specs, device, sizes.rounds),
        "sharing": lambda: sharing(specs[0], device, sizes.processes, sizes.seconds),
    }


def _spec(name: str, batch_size: int, synthesis_batch: int) -> StudySpec:
    sets = [f"synthesis.batch_size={synthesis_batch}", "study.val_data=null"]
    return load_space(name, sets, {"finetune": {"batch_size": batch_size}})
