"""One iteration of synthesis against the teacher's own forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from synq_tune.bench.material import SEED, Report, bench_teacher, common, heading
from synq_tune.bench.timing import Timings, interleave
from synq_tune.config import StudySpec, Synthesis
from synq_tune.errors import InputError
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.seeds import batch_generator
from synq_tune.synthesis import genie, psaq, synq
from synq_tune.synthesis.canvas import Canvas, Pixels
from synq_tune.synthesis.generator import Generated
from synq_tune.synthesis.method import Batch, Objective, SynthesisMethod, Work
from synq_tune.synthesis.optimize import gaussian_pixels, optimize
from synq_tune.synthesis.statistics import on_statistics, remembered, split_index

_ITERATIONS = 4
"""Per call: what a batch costs once is spread as little as in a short synthesis."""


def bench_synthesis(spec: StudySpec, rounds: int, device: torch.device) -> Report:
    """Time `floor`, logits and the gradient of a class loss to the pixels, or to latents and
    generator where a method has them, against the method's own.

    Args:
        spec: its `synthesis` is what is timed.
        rounds: how often each is timed.
        device: where they run.

    Raises:
        InputError: the space's synthesis is not one of `_METHODS`, or does not fit its network.
    """
    config = spec.synthesis
    if config.method not in _METHODS:
        raise InputError(
            f"`synthesis.method is one of {', '.join(_METHODS)}` must hold for this benchmark, but got "
            f"{config.method!r}."
        )
    teacher = bench_teacher(spec, device)
    generator = batch_generator(SEED, "bench", 0)
    pixels = gaussian_pixels(teacher, config.batch_size, generator)
    labels = torch.randint(teacher.num_classes, (len(pixels),), generator=generator).to(device)
    canvas, iterate = _METHODS[config.method](config, teacher, pixels, labels)
    functions = {"floor": partial(_floor, teacher, canvas, labels), config.method: iterate}
    return _report(spec, interleave(functions, rounds, device), device)


def _floor(teacher: LoadedTeacher, canvas: Canvas, labels: Tensor) -> None:
    parameters = canvas.parameters()
    groups = [group["params"] if isinstance(group, dict) else [group] for group in parameters]
    leaves = [leaf for group in groups for leaf in group]
    for _ in range(_ITERATIONS):
        torch.autograd.grad(F.cross_entropy(teacher(canvas.images()), labels), leaves)


_Case = tuple[Canvas, Callable[[], None]]
"""A canvas to time the floor on, and a few iterations of the method on another."""


def _synq(config: Synthesis, teacher: LoadedTeacher, pixels: Tensor, labels: Tensor) -> _Case:
    target = remembered(teacher.graph)
    # The centres' statistics have the shapes of the remembered ones.
    centers = [(mean + 0.1, variance) for mean, variance in target[split_index(len(target)) :]]
    loss = synq.synq_objective(config, target, centers, labels)
    objective = Objective(lambda batch: on_statistics(teacher.graph, loss))
    iterate = _iterations(synq.METHOD, objective, config, teacher, Pixels(pixels), labels)
    return Pixels(pixels), iterate


def _psaq(config: Synthesis, teacher: LoadedTeacher, pixels: Tensor, labels: Tensor) -> _Case:
    objective = psaq.objective(Work(teacher, config, Path(), show=False))
    canvas = Pixels(pixels, psaq.valid_range(teacher.preprocessing, pixels))
    return Pixels(pixels), _iterations(psaq.METHOD, objective, config, teacher, canvas, labels)


def _genie(config: Synthesis, teacher: LoadedTeacher, pixels: Tensor, labels: Tensor) -> _Case:
    objective = genie.objective(Work(teacher, config, Path(), show=False))
    floor, canvas = (
        Generated(teacher, config, len(pixels), batch_generator(SEED, "bench", 2)) for _ in range(2)
    )
    return floor, _iterations(genie.METHOD, objective, config, teacher, canvas, labels)


def _iterations(
    method: SynthesisMethod,
    objective: Objective,
    config: Synthesis,
    teacher: LoadedTeacher,
    canvas: Canvas,
    labels: Tensor,
) -> Callable[[], None]:
    """A few iterations of a method on a batch, which go on from where the last ones ended."""
    own = config.part(method.settings).model_copy(update={"iterations": _ITERATIONS})

    def iterate() -> None:
        generator = batch_generator(SEED, "bench", 1)
        look = partial(method.look, generator=generator, config=own)
        with objective.loss(Batch(len(labels), labels, generator)) as loss:
            optimize(teacher, canvas, loss, method.descent(own), look)

    return iterate


_METHODS = {"synq": _synq, "psaq": _psaq, "genie": _genie}


def _report(spec: StudySpec, timings: Timings, device: torch.device) -> Report:
    batch_size = spec.synthesis.batch_size
    method = spec.synthesis.method
    seconds = {name: timings.median(name) / _ITERATIONS for name in timings.rounds}
    numbers = common(spec, batch_size, device) | {
        "rounds": len(timings.rounds[method]),
        **{f"{name}_seconds": value for name, value in seconds.items()},
        "ratio_to_floor": timings.ratio(method, "floor"),
    }
    lines = [*heading("One iteration of synthesis", spec, batch_size, device), ""]
    lines += [f"{name:10} {1e3 * value:9.1f} ms" for name, value in seconds.items()]
    lines += ["", f"{method} is {numbers['ratio_to_floor']:.2f} times the floor"]
    return Report(lines, numbers)
