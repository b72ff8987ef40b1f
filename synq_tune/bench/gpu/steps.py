"""How long a step takes over its floor, in each number format and way of launching it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from synq_tune.bench.gpu.precision import PRECISIONS, multiplying_in
from synq_tune.bench.gpu.rows import Row, guarded
from synq_tune.bench.material import bench_source, bench_student, bench_teacher
from synq_tune.bench.step import floor_step, trial_step
from synq_tune.bench.timing import interleave
from synq_tune.config import StudySpec
from synq_tune.finetune.loop import TrainingStep
from synq_tune.finetune.optimizer import optimizer_of, update

_PART = "step"
_WARM_UP = 3


def steps(specs: list[StudySpec], device: torch.device, rounds: int) -> Iterator[Row]:
    """Milliseconds of floor and step in each precision, compiled, and as one CUDA graph; memory.

    Args:
        specs: each with its own batch size; weights are random, and nothing is fetched.
        device: where they run; graphs need CUDA.
        rounds: how often each is timed.
    """
    for spec in specs:
        for precision in PRECISIONS:
            name = f"{spec.name}, {precision}"
            yield from guarded(_PART, name, partial(_eager, name, spec, precision, device, rounds))
        for way, make in (("compiled", _compiled), ("as a graph", _graphed)):
            name = f"{spec.name}, {way}"
            yield from guarded(_PART, name, partial(_launched, name, make, spec, device, rounds))


def _eager(
    name: str, spec: StudySpec, precision: str, device: torch.device, rounds: int
) -> Iterator[Row]:
    teacher = bench_teacher(spec, device)
    source = bench_source(teacher, spec.finetune, device)
    functions = {"floor": floor_step(teacher, source), "step": trial_step(spec, teacher, source)}
    _forget_peak(device)
    with multiplying_in(precision, device):
        timings = interleave(functions, rounds, device)
    for what in functions:
        yield Row(_PART, f"{name}: {what}", 1e3 * timings.median(what), "ms")
    yield Row(_PART, f"{name}: step over floor", timings.ratio("step", "floor"), "times")
    if device.type == "cuda":
        yield Row("memory", name, torch.cuda.max_memory_allocated(device) / 2**30, "GiB at most")


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


_Step = Callable[[], object]


def _launched(
    name: str, make: Callable[[StudySpec, torch.device], _Step],
    spec: StudySpec, device: torch.device, rounds: int,
) -> Iterator[Row]:  # fmt: skip
    if make is _graphed and device.type != "cuda":
        yield Row(_PART, name, None, note="needs CUDA")
        return
    teacher = bench_teacher(spec, device)
    source = bench_source(teacher, spec.finetune, device)
    functions = {"eager": trial_step(spec, teacher, source), "other": make(spec, device)}
    timings = interleave(functions, rounds, device)
    yield Row(_PART, name, 1e3 * timings.median("other"), "ms")
    yield Row(_PART, f"{name}: faster than eager", timings.ratio("eager", "other"), "times")


def _one_step(spec: StudySpec, device: torch.device) -> tuple[TrainingStep, _Step]:
    """A trial's step on one batch that stays."""
    config = spec.finetune.model_copy(update={"lr": 1e-12})
    teacher = bench_teacher(spec, device)
    source = bench_source(teacher, config, device)
    student = bench_student(spec, teacher, source)
    step, optimizer = TrainingStep(student, config, teacher.graph), optimizer_of(student, config)
    batch = next(iter(source.batches(0)))

    def once() -> None:
        # Graphs replay on the same memory: gradients stay where they are.
        optimizer.zero_grad(set_to_none=False)
        step(batch)[0].backward()
        update(optimizer, config.grad_clip)

    return step, once


def _compiled(spec: StudySpec, device: torch.device) -> _Step:
    step, once = _one_step(spec, device)
    backend = "inductor" if device.type == "cuda" else "eager"
    step.student.compile(backend=backend)
    return once


def _graphed(spec: StudySpec, device: torch.device) -> _Step:
    """The whole update captured once and replayed: it needs static shapes and no host's answer."""
    _, once = _one_step(spec, device)
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            once()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        once()
    return graph.replay
