"""One update of a reconstruction against the quantized parts' own forward and backward."""

from __future__ import annotations

import copy
from functools import partial

import torch
from torch import Tensor, nn

from synq_tune.bench.material import Report, bench_teacher, common, heading, noise_dataset
from synq_tune.bench.timing import Timings, interleave
from synq_tune.config import Reconstruct, StudySpec
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.quantization.student import (
    activation_quantizers,
    calibrate,
    quantize_student,
    weight_layers,
    weight_quantizers,
)
from synq_tune.reconstruction.cache import Cache, Caches
from synq_tune.reconstruction.fit import fit
from synq_tune.reconstruction.parts import Part, check_parts, parts_of

_ITERATIONS = 50
"""Per call: what a part costs once is spread less than in any reconstruction."""
_BATCHES = 2
"""Of images that parts are fitted on."""


def bench_reconstruction(spec: StudySpec, rounds: int, device: torch.device) -> Report:
    """Time `floor`, each quantized part forward and backward on one batch, against fitting it.

    Args:
        spec: its `reconstruct` is what is timed, with a count of updates of its own.
        rounds: how often each is timed.
        device: where they run.

    Raises:
        InputError: the space's quantizer does not learn its rounding.
    """
    teacher, config = bench_teacher(spec, device), spec.reconstruct
    size = spec.finetune.batch_size  # what --batch-size says
    timed = {"method": "genie", "iterations": _ITERATIONS, "batch_size": size}
    config = config.model_copy(update=timed)
    works = _works(spec, teacher, config, device)
    functions = {"floor": partial(_floor, works, config), "genie": partial(_fit, works, config)}
    return _report(spec, config, len(works), interleave(functions, rounds, device), device)


_Work = tuple[Part, nn.Module, Cache, Cache]
"""A part, the same not to be fitted, what it reads and what the teacher's gives."""


def _works(
    spec: StudySpec, teacher: LoadedTeacher, config: Reconstruct, device: torch.device
) -> list[_Work]:
    images = noise_dataset(teacher, _BATCHES * config.batch_size, 0).images.float().to(device)
    student = quantize_student(teacher, spec.bits, spec.quantizer)
    calibrate(student, [images])
    check_parts(student, config)
    caches, works = Caches(config.memory_budget, device), []
    given = caches.of(iter([images]), len(images), alive=[])
    for part in parts_of(student, teacher.graph, config.blocks):
        target = caches.mapped(part.teacher, given, len(images), [])
        works.append((part, copy.deepcopy(part.student), given, target))
        given = target
    return works


def _floor(works: list[_Work], config: Reconstruct) -> None:
    for _, module, given, target in works:
        rows = slice(0, config.batch_size)
        images, wanted = given.rows(rows), target.rows(rows)
        learned = _learned(module)
        for _ in range(_ITERATIONS):
            loss = (module(images) - wanted).square().mean()
            if learned:
                loss.backward(inputs=learned)


def _learned(module: nn.Module) -> list[Tensor]:
    """Weights, and the steps of weights and values."""
    weights = [layer.weight for layer in weight_layers(module).values()]
    grids = [*weight_quantizers(module), *activation_quantizers(module).values()]
    return weights + [p for grid in grids for p in grid.parameters()]


def _fit(works: list[_Work], config: Reconstruct) -> None:
    for part, _, given, target in works:
        fit(part, given, given, target, config, seed=0)


def _report(
    spec: StudySpec, config: Reconstruct, count: int, timings: Timings, device: torch.device
) -> Report:
    size = config.batch_size
    seconds = {name: timings.median(name) / _ITERATIONS for name in timings.rounds}
    numbers = common(spec, size, device) | {
        "parts": count,
        "rounds": len(timings.rounds["genie"]),
        **{f"{name}_seconds": value for name, value in seconds.items()},
        "ratio_to_floor": timings.ratio("genie", "floor"),
    }
    lines = [*heading(f"One update of all {count} parts", spec, size, device), ""]
    lines += [f"{name:10} {1e3 * value:9.1f} ms" for name, value in seconds.items()]
    lines += ["", f"genie is {numbers['ratio_to_floor']:.2f} times the floor"]
    return Report(lines, numbers)
