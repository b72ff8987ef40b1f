"""Synthetic images a second."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from synq_tune.bench.gpu.rows import Row, guarded
from synq_tune.bench.synthesis_speed import bench_synthesis
from synq_tune.config import StudySpec

_PART = "synthesis"


def synthesis(specs: list[StudySpec], device: torch.device, rounds: int) -> Iterator[Row]:
    """Milliseconds of an iteration, and images a second at the iterations that the space states."""
    for spec in specs:
        yield from guarded(_PART, spec.name, partial(_rates, spec, device, rounds))


def _rates(spec: StudySpec, device: torch.device, rounds: int) -> Iterator[Row]:
    config = spec.synthesis
    seconds = bench_synthesis(spec, rounds, device).numbers[f"{config.method}_seconds"]
    name = f"{spec.name}, {config.method}, batch {config.batch_size}"
    yield Row(_PART, f"{name}: an iteration", 1e3 * seconds, "ms")
    whole = config.iterations * seconds
    yield Row(
        _PART, f"{name}: {config.iterations} iterations", config.batch_size / whole, "images/s"
    )
