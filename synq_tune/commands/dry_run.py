"""What a study will cost, from a few timed steps on this machine."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import fx

from synq_tune.config import FineTune, StudySpec
from synq_tune.config.cost import Runs, reconstruction_images, steps_per_epoch, trial_updates
from synq_tune.data.synthetic import SyntheticDataset
from synq_tune.finetune.loop import finetune
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.quantization.ready import make_ready
from synq_tune.quantization.student import quantize_student
from synq_tune.search.planned import planned_runs
from synq_tune.search.resources import plan_resources
from synq_tune.synthesis import synthesizer
from synq_tune.trial.assets import choose_device, parity_share
from synq_tune.trial.evaluation import predict
from synq_tune.trial.memory import study_disk_bytes, trial_bytes
from synq_tune.trial.requirements import prepare
from synq_tune.trial.rungs import REDUCTION_FACTOR, grace_epochs, is_evaluated
from synq_tune.views.source import (
    Source,
    SourceMaterial,
    ViewSource,
    load_source,
    stores_views,
)
from synq_tune.views.teacher_cache import TeacherCache, explain
from synq_tune.views.transforms import draw_transforms

TIMED_STEPS = 3
_GAMES = 200
_PARITY_PASSES = 7
"""What comparing the exported files on an image costs, in a student's forward passes: the student,
the packed file, and two ONNX files at two levels; 6.4 for EfficientNet-Lite0."""
_RECONSTRUCTION = 1.3
"""An update of a reconstruction, over a forward and backward of all parts; `bench.py reconstruct`."""
STARTED = time.perf_counter()
"""About when this process began to import what a study needs."""


@dataclass(frozen=True)
class UnitSeconds:
    """What was timed on this machine."""

    start: float
    """Until the teacher is here: imports, weights, and its accuracy on the labelled images."""
    synthesis_step: float
    """One batch forward and backward through the teacher."""
    view: float
    """One image shown to the teacher, with its saliency."""
    student: float
    """One image shown to a student."""
    step: float
    """One optimizer step of a trial."""
    trained: float
    """One image of such a step."""


@dataclass(frozen=True)
class Counts:
    """How often a study does what was timed."""

    synthesis_steps: int
    views: float
    """Images shown to the teacher for batches, at every cut-off that is likely to be tried."""
    reconstructed: float
    """Images that a trial's reconstruction shows to all parts, forward and backward."""
    trials: int
    finals: int
    trial_steps: float
    trial_images: float
    """Images that search trials show to students outside of steps."""
    final_steps: int
    final_images: float
    """The same of the finalists' other seeds and the ladder."""
    export_images: float
    """Passes through the exported files, in those of a student."""


@dataclass(frozen=True)
class Estimate:
    """What a study is expected to take; the updates are an upper bound."""

    runs: Runs
    updates: int
    """Optimizer steps of all runs, if ASHA stopped none."""
    images_seen: int
    step_seconds: float
    parts: dict[str, float]
    """Seconds by part of the study."""
    memory_bytes: int
    disk_bytes: int


def estimate(spec: StudySpec, store: Path | None = None) -> Estimate:
    """Time a few steps of synthesis, of training and of evaluation on random images; extrapolate.

    Args:
        spec: the study.
        store: keeps weights that are downloaded; None is the default store.

    Raises:
        InputError: the study cannot run.
    """
    device = choose_device()
    prepared = prepare(spec, device, store)
    teacher, start = prepared.teacher, time.perf_counter() - STARTED
    plan = plan_resources(spec.study, [(os.cpu_count() or 1, torch.cuda.device_count())])
    synthesis_step = _time_synthesis_step(spec, teacher)  # in the driver, which has every core
    torch.set_num_threads(plan.threads)
    view, student, step = _time_trial(spec, teacher)
    shown = min(spec.finetune.batch_size, spec.synthesis.num_images)
    units = UnitSeconds(start, synthesis_step, view, student, step, step / shown)
    labelled = sum(map(len, prepared.halves or ()))
    runs = planned_runs(spec)
    updates = runs.total * trial_updates(spec)
    return Estimate(
        runs=runs,
        updates=updates,
        images_seen=updates * shown,
        step_seconds=step,
        parts=parts(
            counts(spec, teacher.num_classes, labelled, teacher.preprocessing.shape),
            units,
            plan.max_concurrent,
        ),
        memory_bytes=trial_bytes(spec, teacher) * plan.max_concurrent,
        disk_bytes=study_disk_bytes(spec, teacher),
    )


def counts(spec: StudySpec, num_classes: int, labelled: int, shape: tuple[int, ...]) -> Counts:
    """How often a study does each thing, as far as it can be known.

    Args:
        spec: the study.
        num_classes: of the teacher.
        labelled: number of labelled images.
        shape: (C, H, W) of an image.
    """
    runs, epochs = planned_runs(spec), spec.finetune.epochs
    trials, finals = runs.trials, runs.final
    per_epoch, config = steps_per_epoch(spec), spec.finetune
    calibration = config.calibration_batches * min(config.batch_size, spec.synthesis.num_images)
    probes, chosen = 3 * spec.synthesis.num_holdout, labelled // 2
    early = probes + min(chosen, spec.study.eval_images)
    epochs_run, evaluations = _expected(spec, trials)
    cutoffs = _distinct(len(spec.search["d0"].values), trials) if "d0" in spec.search else 1.0
    reported = probes + labelled - chosen
    stored = stores_views(config)
    warmup = 0 if stored else config.generator_warmup_epochs
    ladder = 2 * calibration + 4 * reported  # the teacher, noise, synthetic set, the best
    finished = calibration + probes + chosen
    return Counts(
        synthesis_steps=synthesizer(spec.synthesis.method).steps(spec.synthesis, num_classes),
        views=stored * cutoffs * min(config.num_views, max(epochs, 1)) * spec.synthesis.num_images,
        reconstructed=_RECONSTRUCTION * reconstruction_images(spec),
        trials=trials,
        # The paper's defaults are trained without a reconstruction.
        finals=max(0, finals - 1),
        trial_steps=(epochs_run + trials * warmup) * per_epoch,
        trial_images=trials * calibration + evaluations * early,
        final_steps=finals * (epochs + warmup) * per_epoch,
        final_images=finals * finished + ladder,
        export_images=_PARITY_PASSES
        * (min(labelled, parity_share(spec.study, shape)) + spec.synthesis.num_holdout),
    )


def parts(count: Counts, unit: UnitSeconds, concurrent: int) -> dict[str, float]:
    """Expected seconds of each part of a study."""
    fitting = count.reconstructed * unit.trained * (count.trials / concurrent + count.finals)
    return {
        "start": unit.start,
        "synthesis": count.synthesis_steps * unit.synthesis_step,
        "views": count.views * unit.view,
        **({"reconstruction": fitting} if fitting else {}),
        "trials": (count.trial_steps * unit.step + count.trial_images * unit.student) / concurrent,
        "confirm and ladder": (count.final_steps * unit.step + count.final_images * unit.student),
        "export": count.export_images * unit.student,
    }


def _expected(spec: StudySpec, trials: int) -> tuple[float, float]:
    """Epochs and evaluations of all search trials, where ASHA stops the weaker ones.

    A trial goes on if it is in the best third of those that reached its rung before it. Few are
    stopped at first, and who reaches a later rung is better than those before: so it is played.
    """
    epochs = spec.finetune.epochs
    if spec.study.scheduler == "none" or epochs == 0:
        evaluated = is_evaluated(spec, epochs)
        return float(trials * epochs), float(
            trials * max(1, sum(map(evaluated, range(1, epochs + 1))))
        )
    games = random.Random(0)
    played = [_play(games, trials, epochs) for _ in range(_GAMES)]
    return tuple(sum(values) / _GAMES for values in zip(*played, strict=True))


def _play(draw: random.Random, trials: int, epochs: int) -> tuple[int, int]:
    """(epochs, evaluations) of trials of random quality that arrive one by one."""
    grace = grace_epochs(epochs)
    rungs = sorted({min(rung, epochs) for rung in (grace, grace * REDUCTION_FACTOR, epochs)})
    seen: list[list[float]] = [[] for _ in rungs]
    total = evaluations = 0
    for _ in range(trials):
        quality = draw.random()
        for rung, others in zip(rungs, seen, strict=True):
            evaluations, reached = evaluations + 1, rung
            better = sum(other > quality for other in others)
            is_stopped = better > len(others) // REDUCTION_FACTOR
            others.append(quality)
            if is_stopped:
                break
        total += reached
    return total, evaluations


def _distinct(choices: int, draws: int) -> float:
    """Expected number of different values among so many draws."""
    return choices * (1 - (1 - 1 / choices) ** draws)


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


def _time_trial(spec: StudySpec, teacher: LoadedTeacher) -> tuple[float, float, float]:
    """Seconds of an image seen by the teacher, of one seen by a student, and of a step."""
    device = next(teacher.graph.parameters()).device
    config = spec.finetune.model_copy(update={"epochs": 1, "steps_per_epoch": 1})
    images = _random_images(spec, teacher, min(config.batch_size, spec.synthesis.num_images))
    labels = torch.arange(len(images)) % teacher.num_classes
    techniques = [config.cam] if config.lambda_cam > 0 else []

    def look() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return explain(teacher, images.to(device), labels.to(device), techniques, config)

    if stores_views(config):
        source: Source = _random_source(spec, images, labels, *look(), config, device)
    else:
        dataset = SyntheticDataset(images, labels, 0, "none", "", "", Path(), {})
        material = SourceMaterial(teacher, dataset, Path(), device)
        source = load_source(material, config, spec.study.seed)
    student = quantize_student(teacher, spec.bits, spec.quantizer)
    make_ready(student, config, spec.bits.activations, [images.to(device)])
    ask = partial(predict, student, images, device)
    step = partial(_one_step, student, source, config, teacher)
    seconds = [_seconds(call, device) for call in (look, ask, step)]
    return seconds[0] / len(images), seconds[1] / len(images), seconds[2]


def _one_step(
    student: fx.GraphModule, source: Source, config: FineTune, teacher: LoadedTeacher
) -> None:
    list(finetune(student, source, config, teacher=teacher.graph))


def _random_source(
    spec: StudySpec,
    images: torch.Tensor,
    labels: torch.Tensor,
    logits: torch.Tensor,
    maps: dict[str, torch.Tensor],
    config: FineTune,
    device: torch.device,
) -> ViewSource:
    count = len(images)
    looks = draw_transforms(count, config.model_copy(update={"num_views": 1}), spec.study.seed)
    stored = {name: m[None] for name, m in maps.items()}
    views = TeacherCache(looks, logits[None].half(), torch.zeros(1, count), stored)
    return ViewSource(images, labels, views, config, spec.study.seed, device)


def format_estimate(e: Estimate) -> str:
    """The estimate as lines of text."""
    hours = sum(e.parts.values()) / 3600
    longest = [f"{name} {seconds / 3600:.2f}" for name, seconds in e.parts.items()]
    return "\n".join(
        [
            f"runs         at most {e.runs}",
            f"updates      {e.updates:,} optimizer steps at most, {1000 * e.step_seconds:.1f} ms each",
            f"images seen  {e.images_seen:,} at most",
            f"hours        {hours:.2f} expected ({', '.join(longest)})",
            f"memory       {e.memory_bytes / 2**30:.1f} GiB for all concurrent trials",
            f"disk         {e.disk_bytes / 2**20:.0f} MiB",
        ]
    )
