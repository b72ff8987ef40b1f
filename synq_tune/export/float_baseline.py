"""A network in float32 and quantized, with random weights: files to compare the speed of."""

from __future__ import annotations

from pathlib import Path

import torch

from synq_tune.config import Bits, StudySpec, Teacher
from synq_tune.export import FILE_NAMES
from synq_tune.export.best import export_student
from synq_tune.export.onnx_translate import INPUT, OPSET, OUTPUT, quiet
from synq_tune.models.build import build_model
from synq_tune.models.teacher import LoadedTeacher, load_teacher
from synq_tune.quantization.frozen import StandaloneModel
from synq_tune.quantization.student import calibrate, quantize_student

FLOAT_FILE = "float32.onnx"
_IMAGES = 8


def write_float_baseline(model: str, folder: Path, input_size: int, bits: int) -> list[Path]:
    """Write the network in float32 and, quantized by `deploy`, in every format.

    Speed does not depend on the values: weights are random, ranges are those of noise.

    Args:
        model: as teacher.model.
        folder: gets `float32.onnx` and what `export_student` writes.
        input_size: height and width in pixels.
        bits: of weights and activations.

    Returns:
        The model files, the float32 one first.

    Raises:
        InputError: the network is unknown or cannot be quantized.
    """
    torch.manual_seed(0)
    config = Teacher(model=model, input_size=input_size)
    teacher = load_teacher(config, model=build_model(config))
    spec = StudySpec(
        name="baseline",
        teacher=config,
        quantizer="deploy",
        bits=Bits(weights=bits, activations=bits),
    )
    images = torch.randn(_IMAGES, *teacher.preprocessing.shape)
    student = quantize_student(teacher, spec.bits, spec.quantizer)
    calibrate(student, [images])
    folder.mkdir(parents=True, exist_ok=True)
    _write_float(teacher, folder / FLOAT_FILE)
    report = export_student(student, teacher, spec, folder, images, images)
    written = [name for name in FILE_NAMES if name in report["sizes"]]
    return [folder / FLOAT_FILE, *(folder / FILE_NAMES[name] for name in written)]


def _write_float(teacher: LoadedTeacher, path: Path) -> None:
    """The float32 network as torch exports it, normalisation inside, any batch size."""
    model = StandaloneModel(teacher.graph, teacher.preprocessing).eval()
    example = torch.zeros(2, *teacher.preprocessing.shape)
    with quiet():
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: "batch"},),
            verbose=False,
        )
    program.save(path, external_data=False)
