"""Where the time of one trial goes: each stage timed on its own, then multiplied by how often it
runs."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import fx

from synq_tune.bench.material import (
    Report,
    bench_source,
    bench_student,
    bench_teacher,
    common,
    heading,
    noise_dataset,
)
from synq_tune.bench.timing import seconds_of
from synq_tune.config import FineTune, StudySpec
from synq_tune.data.labelled_cache import load_halves
from synq_tune.finetune.loop import finetune
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.quantization.student import calibrate
from synq_tune.trial.assets import Assets
from synq_tune.trial.evaluation import make_probes
from synq_tune.trial.rungs import is_evaluated
from synq_tune.views.source import ViewSource
from synq_tune.views.teacher_cache import make_views

_STILL = 1e-12


def bench_trial(spec: StudySpec, rounds: int, device: torch.device) -> Report:
    """Seconds and share of a whole trial: quantizing, calibration, updates, evaluation.

    The views are shown beside it: they are made once per study and D0, not once per trial.

    Args:
        spec: its `finetune` as it stands is the trial; labelled images are `study.val_data`.
        rounds: updates and evaluations timed.
        device: where it runs.

    Raises:
        InputError: the space does not fit its network or the labelled images.
    """
    teacher = bench_teacher(spec, device)
    source = bench_source(teacher, spec.finetune, device)
    student = bench_student(spec, teacher, source)
    config = spec.finetune.model_copy(update={"lr": _STILL})
    stages = {
        "quantize": seconds_of(lambda: bench_student(spec, teacher, source), device),
        "calibration": config.calibration_batches * _calibration(student, source, device),
        "updates": _num_updates(spec) * _update_seconds(student, source, config, rounds, teacher),
        "evaluation": _evaluation(spec, teacher, student, rounds, device),
    }
    return _report(spec, stages, _views(spec, teacher, device), device)


def _median(function: Callable[[], object], rounds: int, device: torch.device) -> float:
    return statistics.median(seconds_of(function, device) for _ in range(rounds))


def _calibration(student: fx.GraphModule, source: ViewSource, device: torch.device) -> float:
    """Seconds per calibration batch."""
    return seconds_of(lambda: calibrate(student, [next(iter(source.batches(0))).images]), device)


def _num_updates(spec: StudySpec) -> int:
    one_pass = -(-spec.synthesis.num_images // spec.finetune.batch_size)
    return spec.finetune.epochs * (spec.finetune.steps_per_epoch or one_pass)


def _update_seconds(
    student: fx.GraphModule,
    source: ViewSource,
    config: FineTune,
    rounds: int,
    teacher: LoadedTeacher,
) -> float:
    """Seconds per update of the real loop; an epoch is one update here, the first is not
    counted."""
    config = config.model_copy(update={"epochs": rounds + 1, "steps_per_epoch": 1})
    rows = finetune(student, source, config, teacher=teacher.graph)
    next(rows)
    return _median(lambda: next(rows), rounds, source.images.device)


def _evaluation(
    spec: StudySpec,
    teacher: LoadedTeacher,
    student: fx.GraphModule,
    rounds: int,
    device: torch.device,
) -> float:
    """Seconds of all evaluations of a trial."""
    holdout = noise_dataset(teacher, 1, spec.synthesis.num_holdout)
    choose, report = load_halves(spec, teacher)
    probes = make_probes(teacher, holdout)
    epochs = spec.finetune.epochs
    with tempfile.TemporaryDirectory() as store:
        assets = Assets(spec, teacher, holdout, probes, choose, report, Path(store), device)
        evaluated = is_evaluated(spec, epochs)
        earlier = sum(map(evaluated, range(1, epochs)))
        last = _median(lambda: assets.evaluate(student, is_last=True), rounds, device)
        if not any(assets.is_partial(is_last=False) for _ in range(earlier)):
            return (earlier + 1) * last
        return last + earlier * _median(
            lambda: assets.evaluate(student, is_last=False), rounds, device
        )


def _views(spec: StudySpec, teacher: LoadedTeacher, device: torch.device) -> float:
    """Seconds to make all views of one D0."""
    config = spec.finetune.model_copy(update={"num_views": 1})
    dataset = noise_dataset(teacher, config.batch_size, 0)
    seconds = seconds_of(lambda: make_views(teacher, dataset, config), device)
    return seconds * spec.synthesis.num_images * spec.finetune.num_views / config.batch_size


def _report(
    spec: StudySpec, stages: dict[str, float], views: float, device: torch.device
) -> Report:
    batch_size, total = spec.finetune.batch_size, sum(stages.values())
    shares = {name: value / total for name, value in stages.items()}
    numbers = common(spec, batch_size, device) | {
        "updates": _num_updates(spec),
        **{f"{name}_seconds": value for name, value in stages.items()},
        "trial_seconds": total,
        "views_seconds": views,
        **{f"{name}_share": value for name, value in shares.items()},
    }
    lines = [*heading("One trial", spec, batch_size, device), ""]
    lines += [f"{n:12} {s:10.2f} s  {100 * shares[n]:5.1f} %" for n, s in stages.items()]
    lines += [
        f"{'trial':12} {total:10.2f} s  ({numbers['updates']} updates, extrapolated)",
        f"{'views':12} {views:10.2f} s  once per study and D0 (extrapolated)",
    ]
    return Report(lines, numbers)
