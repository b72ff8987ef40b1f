"""Everything that can be wrong with the user's input, found before any work starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import fx

from synq_tune.config import StudySpec
from synq_tune.config.metrics import auto_metric, mode_of
from synq_tune.config.paths import own_names
from synq_tune.data.labelled import LabelledImages
from synq_tune.data.labelled_cache import Halves, load_halves
from synq_tune.errors import InputError, stage
from synq_tune.inspection.student import Inspection, inspect_student
from synq_tune.models.teacher import LoadedTeacher, load_teacher
from synq_tune.names import resolve
from synq_tune.own_code import find_object
from synq_tune.quantization.student import quantize_student
from synq_tune.synthesis import synthesizer
from synq_tune.trial.evaluation import asking_teacher, top1
from synq_tune.views.cam import cam_tap, check_technique


@dataclass(frozen=True)
class Prepared:
    """A checked teacher, with its accuracy where labels were given."""

    teacher: LoadedTeacher
    metric: str
    """`top1`, `agreement`, `holdout_kl` or `holdout_mse`: what the study chooses by."""
    top1: float | None
    """Percent on all labelled images."""
    reference: float | None
    """Percent that full precision has in the metric, on the images that choose; None of a
    distance."""
    inspection: Inspection
    """What is quantized."""
    halves: Halves | None = None
    """The labelled images, to choose on and to report on."""


def prepare(spec: StudySpec, device: torch.device, store: Path | None = None) -> Prepared:
    """Load the teacher and check that the study can run on it.

    Args:
        spec: names the teacher, its quantizer and the labelled images.
        device: where the teacher will live.
        store: keeps weights that are downloaded; None is the default store.

    Raises:
        InputError: one line that says what does not fit.
    """
    teacher = load_teacher(spec.teacher, device, spec.finetune.cam_layer, store=store)
    inspection = check_parts(spec, teacher)
    check_cams(spec, teacher)
    for name in own_names(spec):
        find_object(name)
    metric = resolve_metric(spec)
    halves = load_halves(spec, teacher)
    reference = 100.0 if mode_of(metric) == "max" else None
    if halves[0] is None:
        return Prepared(teacher, metric, None, reference, inspection)
    accuracies = _accuracies(teacher, halves)
    accuracy = sum(a * len(h) for a, h in zip(accuracies, halves, strict=True)) / sum(
        map(len, halves)
    )
    check_better_than_chance(spec, teacher, accuracy)
    if metric == "top1":
        reference = accuracies[0]
    return Prepared(teacher, metric, accuracy, reference, inspection, halves)


def check_parts(spec: StudySpec, teacher: LoadedTeacher) -> Inspection:
    """What is quantized, of a teacher that this quantizer and this synthesis method can work on.

    Raises:
        InputError: they cannot; the message says what the network lacks.
    """
    with stage("quantizing", f"teacher.model={spec.teacher.model}, quantizer={spec.quantizer}"):
        student = quantize_student(teacher, spec.bits, spec.quantizer)
        inspection = inspect_student(student)
    _check_reconstruction(spec, student)
    _check_source(spec, teacher)
    synthesizer(spec.synthesis.method).check(teacher)
    return inspection


def _check_reconstruction(spec: StudySpec, student: fx.GraphModule) -> None:
    """Ask the reconstruction, where it has a `check`, whether it can be applied to the student."""
    if spec.reconstruct.is_on:
        method = resolve("reconstruction", spec.reconstruct.method)
        getattr(method, "check", lambda student, config: None)(student, spec.reconstruct)


def _check_source(spec: StudySpec, teacher: LoadedTeacher) -> None:
    """Ask the source, where it has a `check`, whether it can work with the teacher."""
    source = resolve("source", spec.finetune.source)
    getattr(source, "check", lambda teacher, config: None)(teacher, spec.finetune)


def resolve_metric(spec: StudySpec) -> str:
    """`auto` is top1 with labels, agreement without.

    Raises:
        InputError: top1 is asked for without labelled images, or a target with a metric that is not
            in percent.
    """
    has_labels = spec.study.val_data is not None
    if spec.study.metric == "top1" and not has_labels:
        raise InputError(
            "study.metric: `metric top1 goes with val_data` must hold, but got metric='top1', "
            "val_data=None. Pass --val-data, or use metric agreement."
        )
    if mode_of(spec.study.metric) == "min" and spec.study.target_loss is not None:
        raise InputError(
            "study.target_loss: `a target goes with metric top1 or agreement` (it is in points) must "
            f"hold, but got metric={spec.study.metric!r}, target_loss={spec.study.target_loss}."
        )
    return auto_metric(spec.study.metric, has_labels)


def _accuracies(teacher: LoadedTeacher, halves: tuple[LabelledImages, ...]) -> list[float]:
    device = next(teacher.graph.parameters()).device
    with asking_teacher(), stage("evaluating the teacher", f"teacher.model={teacher.config.model}"):
        about = teacher.preprocessing, device, None, "teacher"
        return [top1(teacher, half, *about) for half in halves]


def check_better_than_chance(spec: StudySpec, teacher: LoadedTeacher, accuracy: float) -> None:
    """Raise InputError where the teacher's top1 in percent looks like another order of the
    classes."""
    chance = 100.0 / teacher.num_classes
    # Three times chance cannot be asked of two or three classes.
    needed = min(3 * chance, (100.0 + chance) / 2)
    if accuracy < needed:
        raise InputError(
            f"{spec.study.val_data}: `teacher's top1 >= {needed:.1f} %` (three times chance) must "
            f"hold, but got top1={accuracy:.2f} %. The order of the classes or the normalisation "
            "(teacher.mean, teacher.std) is probably not the one the teacher was trained with. Give "
            "teacher.class_names in label order, name class folders by label number, or ask for "
            "torchvision's order with imagefolder:DIR."
        )


def check_cams(spec: StudySpec, teacher: LoadedTeacher) -> None:
    """Raise InputError unless the network has a place for every CAM technique that a trial may
    use."""
    domain = spec.search.get("cam")
    is_on = spec.finetune.lambda_cam > 0 or "lambda_cam" in spec.search
    if is_on:
        for technique in domain.values if domain else (spec.finetune.cam,):
            with stage("trying the CAM technique", f"finetune.cam={technique}"):
                cam_tap(teacher.graph, technique)
                check_technique(technique)
