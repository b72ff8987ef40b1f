"""Memory of a trial's process, stage by stage, in a fresh process."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import torch
from torch import Tensor

from synq_tune.bench.material import (
    SEED,
    Report,
    bench_student,
    bench_teacher,
    common,
    heading,
    noise_dataset,
)
from synq_tune.bench.process_memory import check_readable, pages, peak_bytes, resident_bytes
from synq_tune.bench.shared_memory import shared_memory
from synq_tune.config import FineTune, StudySpec
from synq_tune.data.synthetic import SyntheticDataset
from synq_tune.finetune.loop import finetune
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.text_table import aligned
from synq_tune.trial.evaluation import make_probes
from synq_tune.trial.memory import trial_bytes
from synq_tune.views.source import ViewSource
from synq_tune.views.teacher_cache import TeacherCache, make_views
from synq_tune.views.transforms import draw_transforms

_MIB = 2**20


def bench_memory(spec: StudySpec, rounds: int, device: torch.device) -> Report:
    """Resident, proportional (PSS) and private memory after each stage, and the peak.

    The dataset has the space's size; the teacher's answers are those of one batch, repeated.

    Args:
        spec: its `finetune` as it stands is the trial.
        rounds: updates made.
        device: where they run.

    Raises:
        InputError: the system has no /proc, or the space does not fit its network.
    """
    check_readable()
    threads = torch.get_num_threads()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        stages, estimate = pool.submit(_run, spec, rounds, device, threads).result()
    return _report(spec, stages, estimate, shared_memory(spec), device)


def _run(
    spec: StudySpec, rounds: int, device: torch.device, threads: int
) -> tuple[dict[str, dict[str, int]], int]:
    """Memory after each stage of a short trial, and what a study expects a trial to take."""
    torch.set_num_threads(threads)
    stages = {"libraries": _now(device)}
    teacher = bench_teacher(spec, device)
    stages["teacher"] = _now(device)
    dataset = noise_dataset(teacher, spec.synthesis.num_images, spec.synthesis.num_holdout)
    probes = make_probes(teacher, dataset)
    stages["dataset"] = _now(device)
    config = spec.finetune.model_copy(update={"epochs": 1, "steps_per_epoch": rounds})
    views = _views(teacher, dataset, config)
    images, labels = dataset.train_images, dataset.train_labels
    source = ViewSource(images, labels, views, config, SEED, device)
    stages["views"] = _now(device)
    student = bench_student(spec, teacher, source)
    stages["calibrated"] = _now(device)
    list(finetune(student, source, config, teacher=teacher.graph))
    stages["trained"] = _now(device)
    probes.compare(student, device)
    stages["evaluated"] = _now(device)
    return stages, trial_bytes(spec, teacher)


def _views(teacher: LoadedTeacher, dataset: SyntheticDataset, config: FineTune) -> TeacherCache:
    """Views of the whole dataset with the answers about one batch, repeated."""
    count = len(dataset.train_images)
    few = noise_dataset(teacher, min(count, config.batch_size), 0)
    part = make_views(teacher, few, config.model_copy(update={"num_views": 1}))

    def repeated(values: Tensor) -> Tensor:
        times = -(-count // values.shape[1])
        shape = (config.num_views, times, *[1] * (values.dim() - 2))
        return values.repeat(shape)[:, :count].clone()

    maps = {name: repeated(values) for name, values in part.saliency.items()}
    looks = draw_transforms(count, config, SEED)
    return TeacherCache(looks, repeated(part.logits), repeated(part.difficulty), maps)


def _now(device: torch.device) -> dict[str, int]:
    """Bytes of this process: resident, proportional, private, the peak so far; the GPU's peak."""
    values = {"rss": resident_bytes(), **pages(), "peak_rss": peak_bytes()}
    if device.type == "cuda":
        values["cuda_peak"] = torch.cuda.max_memory_allocated(device)
    return values


def _report(
    spec: StudySpec,
    stages: dict[str, dict[str, int]],
    estimate: int,
    shared: dict[str, int],
    device: torch.device,
) -> Report:
    batch_size, last = spec.finetune.batch_size, list(stages.values())[-1]
    numbers = common(spec, batch_size, device) | {
        "stages": stages,
        "peak_rss_bytes": last["peak_rss"],
        "pss_bytes": last["pss"],
        "estimated_bytes": estimate,
        **shared,
    }
    if "cuda_peak" in last:
        numbers["cuda_peak_bytes"] = last["cuda_peak"]
    lines = [*heading("Memory of a trial", spec, batch_size, device), ""]
    rows = [
        [name, *(f"{value / _MIB:.0f}" for value in row.values())] for name, row in stages.items()
    ]
    numbers_at = range(1, 1 + len(last))
    lines += aligned(
        [["MiB after", *last], *rows], right=numbers_at, at_least=(12, *[8] * len(last))
    )
    lines += ["", f"peak {last['peak_rss'] / _MIB:.0f} MiB, expected {estimate / _MIB:.0f} MiB"]
    mib = {key: f"{value / _MIB:.1f} MiB" for key, value in shared.items()}
    lines += [
        f"two workers that read the same {mib['shared_bytes']} of dataset, views and evaluation images: "
        f"{mib['private_bytes_per_worker']} of its own each, {mib['pss_bytes_per_worker']} with its half "
        "of what they share"
    ]
    return Report(lines, numbers)
