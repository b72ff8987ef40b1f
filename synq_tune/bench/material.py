"""What the speed benchmarks work on: speed depends on shapes, so weights and images may be
random."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import fx

from synq_tune.config import FineTune, StudySpec
from synq_tune.data.synthetic import SyntheticDataset
from synq_tune.models.build import build_model
from synq_tune.models.teacher import LoadedTeacher, load_teacher
from synq_tune.quantization.ready import make_ready
from synq_tune.quantization.student import quantize_student
from synq_tune.views.source import ViewSource
from synq_tune.views.teacher_cache import make_views

SEED = 0


@dataclass(frozen=True)
class Report:
    """What a benchmark found."""

    lines: list[str]
    """A table to print."""
    numbers: dict[str, object]
    """The same as plain values: seconds, ratios, threads."""


def bench_teacher(spec: StudySpec, device: torch.device) -> LoadedTeacher:
    """The space's network with the weights file it names, or with seeded random weights.

    Nothing is downloaded: a URL or a package in the space is not followed.

    Raises:
        InputError: the network or its weights do not load.
    """
    torch.manual_seed(SEED)
    weights = spec.teacher.weights
    is_here = weights.file is not None and weights.package is None
    model = None if is_here else build_model(spec.teacher)
    return load_teacher(spec.teacher, device, spec.finetune.cam_layer, model)


def noise_dataset(teacher: LoadedTeacher, num_images: int, num_holdout: int) -> SyntheticDataset:
    """Standard normal images with random labels, in place of a synthetic dataset."""
    generator = torch.Generator().manual_seed(SEED)
    count = num_images + num_holdout
    images = torch.randn(count, *teacher.preprocessing.shape, generator=generator).half()
    labels = torch.randint(teacher.num_classes, (count,), generator=generator)
    zeros = "0" * 32
    return SyntheticDataset(images, labels, num_holdout, "noise", zeros, 2 * zeros, Path(), {})


def bench_source(teacher: LoadedTeacher, config: FineTune, device: torch.device) -> ViewSource:
    """One batch of noise images with the teacher's answers, as a trial draws it."""
    dataset = noise_dataset(teacher, config.batch_size, 0)
    config = config.model_copy(update={"num_views": 1, "steps_per_epoch": 1})
    views = make_views(teacher, dataset, config)
    images, labels = dataset.train_images, dataset.train_labels
    return ViewSource(images, labels, views, config, SEED, device)


def bench_student(spec: StudySpec, teacher: LoadedTeacher, source: ViewSource) -> fx.GraphModule:
    """A student of the space, calibrated on one batch."""
    student = quantize_student(teacher, spec.bits, spec.quantizer)
    batch = next(iter(source.batches(0))).images
    make_ready(student, spec.finetune, spec.bits.activations, [batch])
    return student


def heading(what: str, spec: StudySpec, batch_size: int, device: torch.device) -> Iterator[str]:
    """The first lines of a table: what ran where."""
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    given = spec.teacher.weights
    weights = "random" if given.package else given.file or "random"
    yield f"{what} of {spec.name} ({spec.quantizer}, weights {weights}), batch {batch_size}"
    yield f"{place}, {torch.get_num_threads()} threads"


def common(spec: StudySpec, batch_size: int, device: torch.device) -> dict[str, object]:
    """What the numbers of every benchmark begin with."""
    return {
        "space": spec.name,
        "batch_size": batch_size,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
