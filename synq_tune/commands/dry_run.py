"""What a study will cost, from a few timed steps on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from synq_tune.config import FineTune, StudySpec
from synq_tune.finetune.loop import finetune
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.quantization.ready import make_ready
from synq_tune.quantization.student import quantize_student
from synq_tune.search.resources import plan_resources
from synq_tune.search.sampler import max_trials
from synq_tune.synthesis import synthesizer
from synq_tune.trial.assets import choose_device
from synq_tune.trial.memory import study_disk_bytes, trial_bytes
from synq_tune.trial.requirements import prepare
from synq_tune.views.source import ViewSource
from synq_tune.views.teacher_cache import TeacherCache, explain
from synq_tune.views.transforms import draw_transforms

TIMED_STEPS = 3


@dataclass(frozen=True)
class Estimate:
    """Upper bounds: ASHA stops trials early, duplicates are not run."""

    trials: int
    updates: int
    """Optimizer steps of all runs."""
    images_seen: int
    step_seconds: float
    synthesis_hours: float
    search_hours: float
    memory_bytes: int
    disk_bytes: int


def estimate(spec: StudySpec, store: Path | None = None) -> Estimate:
    """Time a few steps of synthesis and of fine-tuning on random images and extrapolate.

    Raises:
        InputError: the study cannot run.
    """
    device = choose_device()
    teacher = prepare(spec, device, store).teacher
    plan = plan_resources(spec.study, [(os.cpu_count() or 1, torch.cuda.device_count())])
    torch.set_num_threads(plan.threads)
    step = _time_finetune_step(spec, teacher)
    runs = max_trials(spec) + _final_runs(spec)
    per_epoch = spec.finetune.steps_per_epoch or -(
        -spec.synthesis.num_images // spec.finetune.batch_size
    )
    steps = synthesizer(spec.synthesis.method).steps(spec.synthesis, teacher.num_classes)
    updates = runs * spec.finetune.epochs * per_epoch
    return Estimate(
        trials=max_trials(spec),
        updates=updates,
        images_seen=updates * min(spec.finetune.batch_size, spec.synthesis.num_images),
        step_seconds=step,
        synthesis_hours=steps * _time_synthesis_step(spec, teacher) / 3600,
        search_hours=updates * step / plan.max_concurrent / 3600,
        memory_bytes=trial_bytes(spec, teacher) * plan.max_concurrent,
        disk_bytes=study_disk_bytes(spec, teacher),
    )


def _final_runs(spec: StudySpec) -> int:
    confirm = spec.study.confirm
    if not spec.is_trained:
        return 0
    return 1 + (confirm.top * (confirm.seeds - 1) if confirm else 0)


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    """Median seconds of a call after one warm-up."""
    times = []
    for _ in range(TIMED_STEPS + 1):
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return sorted(times[1:])[TIMED_STEPS // 2]


def _random_images(spec: StudySpec, teacher: LoadedTeacher, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(spec.study.seed)
    return torch.randn(count, *teacher.preprocessing.shape, generator=generator)


def _time_synthesis_step(spec: StudySpec, teacher: LoadedTeacher) -> float:
    device = next(teacher.graph.parameters()).device
    images = _random_images(spec, teacher, spec.synthesis.batch_size).to(device).requires_grad_()
    return _seconds(lambda: torch.autograd.grad(teacher(images).square().sum(), images), device)


def _time_finetune_step(spec: StudySpec, teacher: LoadedTeacher) -> float:
    device = next(teacher.graph.parameters()).device
    config = spec.finetune.model_copy(update={"epochs": 1, "steps_per_epoch": 1})
    source = _random_source(spec, teacher, config, device)
    student = quantize_student(teacher, spec.bits, spec.quantizer)
    make_ready(student, config, spec.bits.activations, [source.images.float()])
    return _seconds(lambda: list(finetune(student, source, config, teacher=teacher.graph)), device)


def _random_source(
    spec: StudySpec, teacher: LoadedTeacher, config: FineTune, device: torch.device
) -> ViewSource:
    count = min(config.batch_size, spec.synthesis.num_images)
    images = _random_images(spec, teacher, count)
    labels = torch.arange(count) % teacher.num_classes
    techniques = [config.cam] if config.lambda_cam > 0 else []
    logits, maps = explain(teacher, images.to(device), labels.to(device), techniques, config)
    looks = draw_transforms(count, config.model_copy(update={"num_views": 1}), spec.study.seed)
    stored = {name: m[None] for name, m in maps.items()}
    views = TeacherCache(looks, logits[None].half(), torch.zeros(1, count), stored)
    return ViewSource(images, labels, views, config, spec.study.seed, device)


def format_estimate(e: Estimate) -> str:
    """The estimate as lines of text."""
    hours = e.synthesis_hours + e.search_hours
    runs = "at most (and the finalists' seeds and the paper's defaults)"
    return "\n".join(
        [
            f"trials       {e.trials} {runs if e.updates else '(calibration only, nothing is trained)'}",
            f"updates      {e.updates:,} optimizer steps, {1000 * e.step_seconds:.1f} ms each",
            f"images seen  {e.images_seen:,}",
            f"hours        {hours:.2f} at most (synthesis {e.synthesis_hours:.2f}, "
            f"search {e.search_hours:.2f}); ASHA stops weak trials early",
            f"memory       {e.memory_bytes / 2**30:.1f} GiB for all concurrent trials",
            f"disk         {e.disk_bytes / 2**20:.0f} MiB",
        ]
    )
