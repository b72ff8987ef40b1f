"""Measure a model file on labelled images, and against its golden vectors."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from synq_tune.data.batches import batch_size as default_batch
from synq_tune.data.labelled import load_labelled
from synq_tune.errors import InputError, stage
from synq_tune.export.golden import check_golden
from synq_tune.export.runtime import ModelFile, load_model_file
from synq_tune.process.exit_codes import DONE


def evaluate_command(arguments: Namespace) -> int:
    """Do what `scripts/evaluate.py` was asked; returns the exit code."""
    for line in evaluate_file(**vars(arguments)):
        print(line)
    return DONE


def evaluate_file(
    model: str,
    val_data: str,
    golden: str | None = None,
    batch_size: int | None = None,
    python_model: str | None = None,
) -> list[str]:
    """Lines to print; the last is `top1 NN.NN % on N images`.

    Args:
        model: `.onnx`, `.safetensors`, `.tflite`, `.pte` or OpenVINO `.xml` file.
        val_data: labelled images; see `load_labelled`.
        golden: golden vectors the file has to give.
        batch_size: images per forward; None takes what fits a CPU.
        python_model: names the user's own network, whose code a packed file may then run.

    Raises:
        InputError: a file or the data are wrong, or the weight codes are not the golden ones.
    """
    if batch_size is not None and batch_size < 1:
        raise InputError(f"`batch_size >= 1` must hold, but got --batch-size {batch_size}.")
    file = load_model_file(model, python_model=python_model)
    with stage("comparing with the golden vectors", f"--golden {golden}"):
        lines = [] if golden is None else [_golden_line(check_golden(file, Path(golden)), golden)]
    if Path(model).suffix == ".tflite":
        lines += _other_family(model, val_data, batch_size)
    with stage("evaluating", model):
        accuracy, count = file_top1(file, val_data, batch_size)
    return [*lines, f"top1 {accuracy:.2f} % on {count} images"]


def _other_family(model: str, val_data: str, batch_size: int | None) -> list[str]:
    """What XNNPACK's kernels make of a .tflite file, and what the last line is then."""
    with stage("evaluating", f"{model}, kernel family float"):
        accuracy, count = file_top1(load_model_file(model, family="float"), val_data, batch_size)
    return [
        f"kernel family float (XNNPACK): top1 {accuracy:.2f} % on {count} images",
        "kernel family fixed (reference kernels, microcontrollers):",
    ]


def file_top1(file: ModelFile, val_data: str, batch_size: int | None) -> tuple[float, int]:
    """Percentage of labelled images whose arg-max is the label, and their number."""
    data = load_labelled(val_data, file.preprocessing, file.num_classes, _class_names(file))
    batch_size = batch_size or default_batch(*data.images.shape[2:])
    correct = 0
    for images, labels in zip(
        data.images.split(batch_size), data.labels.split(batch_size), strict=True
    ):
        logits = file.logits(images.float() / 255)
        if not logits.isfinite().all():  # the arg-max of NaN is class 0
            raise InputError(
                f"{file.path}: `the model's logits are finite` must hold, but some are not on "
                f"{val_data}."
            )
        correct += int((logits.argmax(1) == labels).sum())
    return 100.0 * correct / len(data.labels), len(data.labels)


def _class_names(file: ModelFile) -> list[str] | None:
    """The file's, where they are what we write."""
    names = file.metadata.get("class_names")
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if is_list and len(names) == file.num_classes else None


def _golden_line(report: dict[str, Any], golden: str) -> str:
    weights, activations, logits = (
        report[key] for key in ("weight_codes", "activation_codes", "logits")
    )
    if weights["mismatches"]:
        raise InputError(
            f"{golden}: `weight codes are the golden ones` must hold, but "
            f"{weights['mismatches']} of {weights['codes']} differ. It belongs to another model."
        )
    return (
        f"golden: {weights['codes']} weight codes identical, {activations['mismatches']} of "
        f"{activations['codes']} activation codes differ, classes equal on "
        f"{logits['images'] - len(logits['exceptions'])} of {logits['images']} images, "
        f"largest logit difference {logits['max_difference']:.2g}"
    )
