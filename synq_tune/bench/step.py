"""One training step against its floor and against the released code's."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F

from synq_tune.bench.material import (
    Report,
    bench_source,
    bench_student,
    bench_teacher,
    common,
    heading,
)
from synq_tune.bench.released import ReleasedStep
from synq_tune.bench.timing import Timings, interleave
from synq_tune.config import StudySpec
from synq_tune.config.load import with_recipe
from synq_tune.finetune.loop import TrainingStep, one_update
from synq_tune.finetune.optimizer import optimizer_of
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.views.source import ViewSource

_STILL = 1e-12
"""Learning rate at which random weights stay finite however many rounds run."""


def bench_step(spec: StudySpec, rounds: int, device: torch.device) -> Report:
    """Time four functions on the same images.

    `floor`: the plain network, trainable, BatchNorm in evaluation mode: forward, backward, SGD.
    `synq`: what a trial does per update, with the space's own settings; drawing the batch included.
    `draw`: drawing the batch alone. `released`: the released code's passes, nothing drawn.

    Args:
        spec: names network, bits, settings.
        rounds: how often each is timed.
        device: where they run.

    Raises:
        InputError: the space does not fit its network.
    """
    teacher = bench_teacher(spec, device)
    source = bench_source(teacher, spec.finetune, device)
    functions = {
        "floor": floor_step(teacher, source),
        "synq": trial_step(spec, teacher, source),
        "draw": lambda: next(iter(source.batches(0))),
        "released": _released(spec, teacher, source),
    }
    timings = interleave(functions, rounds, device)
    return _report(spec, timings, device)


def floor_step(teacher: LoadedTeacher, source: ViewSource) -> Callable[[], None]:
    """Forward, backward and SGD of the plain network on one batch."""
    network = copy.deepcopy(teacher.graph).requires_grad_(True)
    optimizer = torch.optim.SGD(network.parameters(), lr=_STILL, momentum=0.9, fused=True)
    batch = next(iter(source.batches(0)))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(network(batch.images), batch.labels).backward()
        optimizer.step()

    return step


def trial_step(spec: StudySpec, teacher: LoadedTeacher, source: ViewSource) -> Callable[[], None]:
    """An update of a trial, its batch drawn anew."""
    config = spec.finetune.model_copy(update={"lr": _STILL})
    student = bench_student(spec, teacher, source)
    step = TrainingStep(student, config, teacher.graph)
    optimizer = optimizer_of(student, config)
    return lambda: one_update(step, next(iter(source.batches(0))), optimizer, config)


def _released(spec: StudySpec, teacher: LoadedTeacher, source: ViewSource) -> Callable[[], None]:
    config = with_recipe(spec, "synq_code").finetune.model_copy(update={"lr": _STILL})
    step = ReleasedStep(bench_student(spec, teacher, source), teacher.graph, config)
    batch = next(iter(source.batches(0)))
    return lambda: step(batch)


def _report(spec: StudySpec, timings: Timings, device: torch.device) -> Report:
    batch_size = spec.finetune.batch_size
    numbers = common(spec, batch_size, device) | {
        "rounds": len(timings.rounds["synq"]),
        **{f"{name}_seconds": timings.median(name) for name in timings.rounds},
        "ratio_to_floor": timings.ratio("synq", "floor"),
        "ratio_to_released": timings.ratio("released", "synq"),
        "released_to_floor": timings.ratio("released", "floor"),
    }
    lines = [*heading("One step", spec, batch_size, device), ""]
    lines += [f"{name:10} {1e3 * timings.median(name):9.1f} ms" for name in timings.rounds]
    lines += [
        "",
        f"synq is {numbers['ratio_to_floor']:.2f} times the floor and "
        f"{numbers['ratio_to_released']:.2f} times faster than the released step",
    ]
    return Report(lines, numbers)
