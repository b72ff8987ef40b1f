"""A student whose layers have widths of their own leaves as it is, in every format."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from synq_tune.config import Bits, StudySpec
from synq_tune.export.best import export_student
from synq_tune.export.packing import packed_size
from synq_tune.export.runtime import load_model_file
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.quantization.student import (
    ACTIVATION_PREFIX,
    activation_quantizers,
    quantize_student,
    weight_layers,
)
from tests.export import networks


def _assignment(teacher: LoadedTeacher, quantizer: str) -> Bits:
    """2, 3, 4, 8 bits in turn for weights, in another order for values."""
    student = quantize_student(teacher, Bits(weights=3, activations=3), quantizer)
    overrides: dict[str, dict[str, int]] = {}
    for name, width in zip(weight_layers(student), cycle((2, 3, 4, 8)), strict=False):
        overrides[name] = {"weights": width}
    for name, width in zip(activation_quantizers(student), cycle((4, 8, 3)), strict=False):
        overrides.setdefault(name.removeprefix(ACTIVATION_PREFIX), {})["activations"] = width
    return Bits(weights=3, activations=3, overrides=overrides)


MANY_SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("lsq", "genie", "deploy")]


@pytest.mark.long
@pytest.mark.parametrize("quantizer", ["minmax", *MANY_SLOW])
def test_no_code_differs_in_any_format(quantizer: str, tmp_path: Path) -> None:
    """Weights, values, golden vectors and sizes of a digits network at mixed widths."""
    teacher = networks.teacher("digits_resnet26", (3, 8, 8))
    bits = _assignment(teacher, quantizer)
    student, images = networks.student(teacher, quantizer, 3, overrides=bits.overrides)
    spec = StudySpec(name="mixed", teacher=teacher.config, quantizer=quantizer, bits=bits)
    report = export_student(student, teacher, spec, tmp_path, images, images)
    assert all(codes["mismatches"] == 0 for codes in report["weight_codes"].values())
    assert report["golden"]["packed"]["activation_codes"]["mismatches"] == 0
    flips = report["golden"]["onnx"]["activation_codes"]
    assert flips["mismatches"] <= 1e-3 * flips["codes"]
    assert ("hardware" in report["weight_codes"]) == (quantizer == "deploy")
    packed = load_model_file(tmp_path / "model.packed.safetensors")
    assert packed.metadata["bits"] == bits.model_dump()
    _check_codes_use_their_widths(tmp_path / "golden.npz", bits)


def _check_codes_use_their_widths(path: Path, bits: Bits) -> None:
    """Each tensor's codes fit its own width, and most need all of it."""
    full = 0
    with np.load(path) as golden:
        names = [name for name in golden.files if "/" in name]
        for name in names:
            kind, tensor = name.split("/")
            width = bits.overrides[tensor.removeprefix(ACTIVATION_PREFIX)][f"{kind}s"]
            reach = int(golden[name].max()) - int(golden[name].min())
            assert reach < 2**width, name
            full += reach >= 2 ** (width - 1)
    assert full > 0.8 * len(names)


def test_the_packed_size_counts_each_layer_at_its_width(tmp_path: Path) -> None:
    """Another width of one layer changes the file by that layer's codes alone."""
    teacher = networks.teacher("digits_resnet26", (3, 8, 8))
    count = teacher.graph.get_submodule("linear").weight.numel()
    sizes = []
    for width in (3, 8):
        overrides = {"linear": {"weights": width}}
        student, images = networks.student(teacher, "minmax", 3, overrides=overrides)
        bits = Bits(weights=3, activations=3, overrides=overrides)
        spec = StudySpec(name="mixed", teacher=teacher.config, bits=bits)
        formats = ("packed",)
        report = export_student(
            student, teacher, spec, tmp_path / str(width), images, images, formats
        )
        sizes.append(report["sizes"]["packed_theoretical"])
    assert sizes[1] - sizes[0] == packed_size(count, 8) - packed_size(count, 3)
