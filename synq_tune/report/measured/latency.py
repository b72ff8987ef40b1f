"""How long the exported file takes for one image on this machine."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from synq_tune.export.runtime import load_model_file

_WARM_UP, _TIMES = 3, 20


@dataclass(frozen=True)
class Latency:
    """One image at a time, through ONNX Runtime on the CPU."""

    milliseconds: float
    """Median."""
    times: int
    cores: int
    """Of the machine, as many as it may use."""


def latency(file: Path) -> Latency:
    """Time `model.onnx` on grey noise, whose content does not matter.

    Raises:
        InputError: it is damaged.
    """
    model = load_model_file(file, "ALL")
    image = torch.full((1, *model.preprocessing.shape), 0.5)
    seconds = []
    for _ in range(_WARM_UP + _TIMES):
        begun = time.perf_counter()
        model.logits(image)
        seconds.append(time.perf_counter() - begun)
    median = statistics.median(seconds[_WARM_UP:])
    return Latency(1000 * median, _TIMES, len(os.sched_getaffinity(0)))
