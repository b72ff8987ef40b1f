"""Trials an hour where several share a device, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from synq_tune.bench.gpu.rows import Row, guarded
from synq_tune.bench.material import bench_source, bench_teacher
from synq_tune.bench.step import trial_step
from synq_tune.bench.timing import seconds_of
from synq_tune.config import StudySpec
from synq_tune.config.cost import trial_updates

_PART = "sharing"
_PATIENCE = 120.0
"""Seconds until every process has its first step behind it."""


def sharing(
    spec: StudySpec, device: torch.device, counts: tuple[int, ...], seconds: float
) -> Iterator[Row]:
    """Updates a second of all processes together, and the trials an hour that they make.

    Args:
        spec: its `finetune` is the trial.
        device: what they share.
        counts: numbers of processes, one after the other.
        seconds: for which each number runs.
    """
    for count in counts:
        name = f"{spec.name}, {count} processes"
        yield from guarded(_PART, name, partial(_together, name, spec, device, count, seconds))


def _together(
    name: str, spec: StudySpec, device: torch.device, count: int, seconds: float
) -> Iterator[Row]:
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(count), context.SimpleQueue()
    arguments = (spec, str(device), seconds, barrier, answers)
    started = [context.Process(target=_steps, args=arguments, daemon=True) for _ in range(count)]
    for process in started:
        process.start()
    for process in started:
        process.join(_PATIENCE + 2 * seconds)
    ended = [process.exitcode for process in started]
    if any(ended):
        raise RuntimeError(f"processes ended with {ended}")
    pace = sum(answers.get() for _ in started)
    yield Row(_PART, f"{name}: updates", pace, "1/s")
    yield Row(_PART, f"{name}: trials", 3600 * pace / max(1, trial_updates(spec)), "an hour")


def _steps(spec: StudySpec, device: str, seconds: float, barrier: Any, answers: Any) -> None:
    """Take steps once everybody is ready, and say how many a second."""
    torch.set_num_threads(1)
    place = torch.device(device)
    teacher = bench_teacher(spec, place)
    step = trial_step(spec, teacher, bench_source(teacher, spec.finetune, place))
    seconds_of(step, place)
    barrier.wait(_PATIENCE)
    end, count, spent = time.perf_counter() + seconds, 0, 0.0
    while time.perf_counter() < end:
        spent += seconds_of(step, place)
        count += 1
    answers.put(count / spent)
