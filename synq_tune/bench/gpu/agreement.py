"""Is what the device computes what the CPU computes?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cache, partial

import torch
from torch import Tensor

from synq_tune.bench.gpu.precision import ALLOWED, PRECISIONS, multiplying_in
from synq_tune.bench.gpu.rows import Row, guarded
from synq_tune.bench.material import SEED, bench_source, bench_student, bench_teacher, noise_dataset
from synq_tune.config import StudySpec
from synq_tune.config.load import load_space
from synq_tune.finetune.loop import TrainingStep
from synq_tune.names import known
from synq_tune.quantization.student import (
    activation_quantizers,
    calibrate,
    quantize_student,
    weight_layers,
)
from synq_tune.seeds import batch_generator
from synq_tune.synthesis.statistics import on_statistics, remembered, split_index
from synq_tune.synthesis.synq import synq_objective
from synq_tune.views.low_pass import low_pass
from synq_tune.views.teacher_cache import explain

_PART = "agreement"
_CODES = 1e-3
"""Share of codes that may differ: values that lie on the edge between two."""
_TRANSFORMER = "digits_vit_w4a8"
_CPU = torch.device("cpu")


def agreement(spec: StudySpec, device: torch.device) -> Iterator[Row]:
    """A row for each quantizer's codes, and for each computation in each precision.

    Args:
        spec: of a convolutional network; its weights are random, and nothing is fetched.
        device: what is compared with the CPU.
    """
    for name in known("quantizer"):
        yield from guarded(_PART, f"codes, {name}", partial(_codes, spec, name, device))
    for what, compute in _COMPUTED.items():
        expected = cache(partial(compute, spec, _CPU))
        for precision in PRECISIONS:
            name = f"{what}, {precision}"
            found = partial(compute, spec, device)
            compare = partial(_compare, name, expected, found, precision, device)
            yield from guarded(_PART, name, compare)


def _codes(spec: StudySpec, quantizer: str, device: torch.device) -> Iterator[Row]:
    """Share of the codes of weights and values that differ, on the same real numbers."""
    spec = load_space(_TRANSFORMER) if quantizer.startswith("vit_") else spec
    teacher = bench_teacher(spec, _CPU)
    student = quantize_student(teacher, spec.bits, quantizer)
    calibrate(student, [noise_dataset(teacher, 8, 0).images.float()])
    other = copy.deepcopy(student).to(device)
    share = differing_codes(student, other, device)
    yield Row(_PART, f"codes, {quantizer}", share, "share that differs", share <= _CODES)


def differing_codes(
    student: torch.fx.GraphModule, other: torch.fx.GraphModule, device: torch.device
) -> float:
    """Share of the codes in which a student on the CPU and one on a device differ."""
    pairs = [*_weight_codes(student, other), *_value_codes(student, other, device)]
    differing = sum(int((a != b).sum()) for a, b in pairs)
    return differing / sum(a.numel() for a, _ in pairs)


def _weight_codes(student: torch.fx.GraphModule, other: torch.fx.GraphModule) -> Iterator[tuple]:
    for layer, twin in zip(*(weight_layers(m).values() for m in (student, other)), strict=True):
        yield layer.integer_weight()[0].cpu(), twin.integer_weight()[0].cpu()


def _value_codes(
    student: torch.fx.GraphModule, other: torch.fx.GraphModule, device: torch.device
) -> Iterator[tuple]:
    generator = torch.Generator().manual_seed(SEED)
    for grid, twin in zip(
        *(activation_quantizers(m).values() for m in (student, other)), strict=True
    ):
        scale = float(grid.qparams()[0].detach())
        values = torch.randn(4096, generator=generator) * scale * 2 ** (grid.bits - 1)
        with torch.no_grad():
            pair = grid(values), twin(values.to(device)).cpu()
        yield tuple((v / scale).round() for v in pair)


def _compare(
    name: str, expected: Callable[[], Tensor], found: Callable[[], Tensor],
    precision: str, device: torch.device,
) -> Iterator[Row]:  # fmt: skip
    wanted = expected()
    with multiplying_in(precision, device):
        actual = found().float().cpu()
    difference = float((actual - wanted).norm() / wanted.norm())
    yield Row(_PART, name, difference, "of the norm", difference <= ALLOWED[precision])


def _filtered(spec: StudySpec, device: torch.device) -> Tensor:
    images = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(SEED))
    return low_pass(images.to(device), 40.0)


def _maps(spec: StudySpec, device: torch.device) -> Tensor:
    """Maps of all techniques, the teacher's, one behind the other."""
    teacher = bench_teacher(spec, device)
    images = noise_dataset(teacher, 8, 0).images.float().to(device)
    labels = torch.arange(8, device=device) % teacher.num_classes
    _, maps = explain(teacher, images, labels, list(known("CAM technique")), spec.finetune)
    return torch.cat([values.flatten() for values in maps.values()]).float()


def _pixels(spec: StudySpec, device: torch.device) -> Tensor:
    """The gradient that a synthesis batch follows."""
    teacher = bench_teacher(spec, device)
    images = torch.randn(8, *teacher.preprocessing.shape, generator=batch_generator(SEED, "gpu", 0))
    images = images.to(device).requires_grad_()
    target = remembered(teacher.graph)
    centers = [(mean + 0.1, variance) for mean, variance in target[split_index(len(target)) :]]
    labels = torch.arange(8, device=device) % teacher.num_classes
    loss = synq_objective(spec.synthesis, target, centers, labels)
    with on_statistics(teacher.graph, loss) as measure:
        (gradient,) = torch.autograd.grad(measure(images, teacher(images)), images)
    return gradient


def _losses(spec: StudySpec, device: torch.device) -> Tensor:
    """A trial's losses on its first batch; the student is calibrated on the CPU for both."""
    config = spec.finetune.model_copy(update={"batch_size": 16})
    spec = spec.model_copy(update={"finetune": config})
    teacher = bench_teacher(spec, _CPU)
    student = bench_student(spec, teacher, bench_source(teacher, config, _CPU)).to(device)
    own = bench_teacher(spec, device)
    step = TrainingStep(student, config, own.graph)
    return step(next(iter(bench_source(own, config, device).batches(0)))).detach()


_COMPUTED: dict[str, Callable[[StudySpec, torch.device], Tensor]] = {
    "low-pass filter": _filtered,
    "saliency maps": _maps,
    "gradient of a synthesis batch": _pixels,
    "losses of a trial": _losses,
}
