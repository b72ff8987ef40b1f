"""`model.tflite` computes what the student computes, in LiteRT's integers, to the bit of a reference."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from synq_tune.commands.evaluate import evaluate_file
from synq_tune.commands.export import refuse_shifted_weights
from synq_tune.commands.runtimes import runtimes_table
from synq_tune.config import Bits, StudySpec
from synq_tune.errors import InputError
from synq_tune.export import exporter_of, formats_of
from synq_tune.export.best import export_student
from synq_tune.export.hardware import prepared
from synq_tune.export.metadata import describe
from synq_tune.export.options import HARDWARE
from synq_tune.export.runtime import load_model_file
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.quantization.frozen import StandaloneModel, freeze, frozen_layers
from tests.export import networks

pytest.importorskip("ai_edge_litert", reason="the extra litert is not installed")

from synq_tune.export.tflite_arithmetic import FAMILIES  # noqa: E402
from synq_tune.export.tflite_check import check_kernels  # noqa: E402
from synq_tune.export.tflite_model import write_tflite  # noqa: E402
from synq_tune.export.tflite_schema import (  # noqa: E402
    constant,
    operators,
    packed,
    read_model,
    schema,
    to_bytes,
    unpacked,
)

NETWORKS = [
    ("residual_net", 8), ("plain_net", 8), ("gated_net", 16), ("silu_net", 8), ("shared_net", 8),
    ("preactivation_net", 8),
    *(pytest.param(*n, marks=pytest.mark.slow) for n in (("digits_resnet26", 8), ("mobilenet_v2", 32))),
]  # fmt: skip


@dataclass(frozen=True)
class Written:
    """A file with the student it was made from."""

    teacher: LoadedTeacher
    student: fx.GraphModule
    images: Tensor
    """In [0, 1]."""
    path: Path

    @property
    def model(self) -> StandaloneModel:
        return StandaloneModel(freeze(self.student), self.teacher.preprocessing).eval()


def _write(name: str, size: int, bits: int, folder: Path) -> Written:
    teacher = networks.teacher(name, (3, size, size))
    student, images = networks.student(teacher, "deploy", bits)
    made = Written(teacher, student, teacher.preprocessing.denormalize(images), folder / "m.tflite")
    metadata = describe(teacher, Bits(weights=bits, activations=bits), "deploy")
    write_tflite(made.model, metadata, made.path, made.images)
    return made


def _spec(teacher: Any, quantizer: str) -> StudySpec:
    bits = Bits(weights=8, activations=8)
    return StudySpec(name="x", teacher=teacher, quantizer=quantizer, bits=bits)


@pytest.mark.parametrize("bits", [8, 4, pytest.param(3, marks=pytest.mark.long)])
@pytest.mark.parametrize(("name", "size"), NETWORKS)
def test_no_code_differs_from_the_reference(
    name: str, size: int, bits: int, tmp_path: Path
) -> None:
    """Every int8 tensor, by both families of kernels, on images the file has not seen."""
    made = _write(name, size, bits, tmp_path)
    report = check_kernels(made.path, torch.rand(4, *made.teacher.preprocessing.shape))
    assert tuple(report) == FAMILIES
    for family in report.values():
        assert family["codes"] > 1000
        assert family["mismatches"] == 0, family["where"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("name", "size"), NETWORKS)
def test_it_is_the_student(name: str, size: int, family: str, tmp_path: Path) -> None:
    """At 8 bits the logits are the student's but for some steps of the grids, in any batch."""
    made = _write(name, size, 8, tmp_path)
    expected = made.model(made.images)
    file = load_model_file(made.path, family=family)
    logits = file.logits(made.images)
    assert float((logits - expected).abs().mean()) < 0.01 * float(expected.abs().max())
    torch.testing.assert_close(file.logits(made.images, 5), logits, rtol=0, atol=0)


@pytest.mark.parametrize("bits", [8, 3])
@pytest.mark.parametrize(("name", "size"), NETWORKS)
def test_weights_are_the_absorbed_codes(name: str, size: int, bits: int, tmp_path: Path) -> None:
    """In PyTorch's order of axes again; 4-bit containers for few bits, biases int32."""
    made = _write(name, size, bits, tmp_path)
    file = load_model_file(made.path)
    expected = frozen_layers(prepared(made.model.frozen, HARDWARE))
    if name == "preactivation_net":  # a branch of zeros changes nothing
        assert {"conv"} < file.left_out
        del expected["conv"]
    codes = file.weight_codes()
    assert codes.keys() == expected.keys()
    assert all(torch.equal(codes[n], w.codes) for n, w in expected.items())
    assert set(file.metadata["containers"]["weights"].values()) == {"INT8" if bits == 8 else "INT4"}
    model, kinds = read_model(made.path), schema().TensorType
    for tensor in model.subgraphs[0].tensors:
        if tensor.name.endswith(b".bias"):
            assert tensor.type == kinds.INT32


@pytest.mark.parametrize("bits", [8, 4])
def test_values_are_counted_from_zero(bits: int, tmp_path: Path) -> None:
    """The file's codes are the student's grids', of which no value leaves its bits."""
    made = _write("gated_net", 16, bits, tmp_path)
    codes = load_model_file(made.path).activation_codes(made.images)
    grids = dict(made.model.frozen.named_modules())
    normalised = made.teacher.preprocessing.normalize(made.images)
    assert torch.equal(codes["quantize_x"], grids["quantize_x"].codes(normalised))
    assert all(int(values.max()) < 2**bits for values in codes.values())
    assert {int(values.max()) for values in codes.values()} != {0}


def test_four_bits_take_half_a_byte(tmp_path: Path) -> None:
    """The smaller container is worth it: half of the weights' bytes."""
    wide = _write("mobilenet_v2", 32, 8, tmp_path).path.stat().st_size
    made = _write("mobilenet_v2", 32, 4, tmp_path)
    weights = sum(w.codes.numel() for w in frozen_layers(made.model.frozen).values())
    assert wide - made.path.stat().st_size > 0.4 * weights


def test_halves_of_bytes_round_trip() -> None:
    """Also an odd number of codes, and the smallest."""
    codes = np.array([-8, 7, 0, -1, 3], np.int8)
    assert packed(codes).tobytes() == bytes([0x78, 0xF0, 0x03])
    assert np.array_equal(unpacked(packed(codes), 5), codes)


def test_images_are_nhwc_floats_and_logits_floats(tmp_path: Path) -> None:
    """The layout that users of .tflite files expect; the metadata say the same."""
    made = _write("residual_net", 8, 8, tmp_path)
    graph = read_model(made.path).subgraphs[0]
    ends = [graph.tensors[i] for i in (*graph.inputs, *graph.outputs)]
    assert [e.name for e in ends] == [b"images", b"logits"]
    assert [e.shapeSignature.tolist() for e in ends] == [[-1, 8, 8, 3], [-1, 10]]
    assert {e.type for e in ends} == {schema().TensorType.FLOAT32}
    metadata = load_model_file(made.path).metadata
    assert metadata["layout"] == "NHWC"
    assert metadata["teacher_fingerprint"] == made.teacher.fingerprint


def test_padding_costs_no_operator_where_the_runtime_has_it(tmp_path: Path) -> None:
    """Padding that SAME does not know is an operator of its own, read by the layer alone."""
    made = _write("gated_net", 16, 8, tmp_path)
    names = [name for name, _ in operators(read_model(made.path))]
    assert names.count("PAD") + names.count("PADV2") == 2  # the stem's stride, and max pooling
    assert names.count("CONV_2D") == 7


class _Cubed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.LayerNorm(6)
        self.linear = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(self.conv(x).relu()).mean((2, 3)))


def test_an_operation_without_an_operator_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written then."""
    monkeypatch.setattr(networks, "cubed_net", _Cubed, raising=False)
    with pytest.raises(InputError, match="LayerNorm at norm"):
        _write("cubed_net", 8, 8, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_layer_that_reads_floats_is_refused_by_name(tmp_path: Path) -> None:
    """The paper's grids leave the input in float."""
    teacher = networks.teacher("plain_net", (3, 8, 8))
    student, images = networks.student(teacher, "vit_lsq", 8)
    model = StandaloneModel(freeze(student), teacher.preprocessing).eval()
    with pytest.raises(InputError, match="a float behind"):
        write_tflite(model, {}, tmp_path / "m.tflite", images)


def test_weights_with_zero_points_are_refused_before_any_work() -> None:
    """As for hardware files."""
    spec = _spec({"model": "digits_resnet26"}, "minmax")
    with pytest.raises(InputError, match="quantizer=minmax"):
        refuse_shifted_weights(spec, "tflite")


def test_it_is_written_where_it_fits() -> None:
    """Not for transformers, whose operations have none, nor for the paper's quantizer."""
    for network, quantizer, fits in (
        ("residual_net", "deploy", True), ("residual_net", "minmax", False),
        ("tiny_deit", "deploy", False),
    ):  # fmt: skip
        teacher = networks.teacher(network, (3, 8, 8))
        student, _ = networks.student(teacher, quantizer, 8)
        assert ("tflite" in formats_of(freeze(student))) == fits, network


def test_parity_names_both_families(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Agreement by each, codes that differ by each; and nothing is printed."""
    teacher = networks.teacher("digits_resnet26")
    student, images = networks.student(teacher, "deploy", 8)
    spec = _spec(teacher.config, "deploy")
    report = export_student(student, teacher, spec, tmp_path, images, images, ("tflite",))
    assert list(report["logits"]) == ["tflite fixed", "tflite float"]
    assert all(entry["agreement"] > 90 for entry in report["logits"].values())
    assert [report["kernels"][family]["mismatches"] for family in FAMILIES] == [0, 0]
    assert report["golden"]["tflite"]["weight_codes"]["mismatches"] == 0
    assert report["sizes"]["tflite"] == (tmp_path / "model.tflite").stat().st_size
    assert capfd.readouterr() == ("", "")


def test_every_kernel_is_tried(tmp_path: Path) -> None:
    """By the probes: XNNPACK where it can, built-in and reference kernels, all in integers."""
    teacher = networks.teacher("digits_resnet26")
    student, images = networks.student(teacher, "deploy", 8)
    spec = _spec(teacher.config, "deploy")
    export_student(student, teacher, spec, tmp_path, images, images, ("tflite",))
    lines = runtimes_table([tmp_path / "model.tflite"], rounds=1)
    rows = [line.split("|")[1:-1] for line in lines if "LiteRT" in line]
    assert len(rows) == 3
    for row in rows:
        assert [cell.strip() for cell in row[3:6]] == ["yes", "yes", "32 of 32"]
        assert row[8].strip() == "26 of 26"


def test_evaluate_reads_it_by_both_families(tmp_path: Path) -> None:
    """The last line is the accuracy of the kernels that a microcontroller has."""
    made = _write("digits_resnet26", 8, 8, tmp_path)
    lines = evaluate_file(str(made.path), "digits")
    assert "float" in lines[-3] and "fixed" in lines[-2]
    assert lines[-1].startswith("top1 ") and lines[-1].endswith("% on 896 images")


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(share: float, tmp_path: Path) -> None:
    """With one line, before the runtime sees it."""
    made = _write("residual_net", 8, 8, tmp_path)
    with pytest.raises(InputError, match="must hold"):
        load_model_file(networks.cut(made.path, share)).logits(made.images)


def test_files_and_operators_of_others_are_refused(tmp_path: Path) -> None:
    """A custom operator would run its maker's code."""
    made = _write("residual_net", 8, 8, tmp_path)
    model = read_model(made.path)
    model.operatorCodes[0].builtinCode = schema().BuiltinOperator.CUSTOM
    made.path.write_bytes(to_bytes(model))
    with pytest.raises(InputError, match="CUSTOM"):
        load_model_file(made.path)
    model.metadata = []
    made.path.write_bytes(to_bytes(model))
    with pytest.raises(InputError, match="exported by synq-tune"):
        load_model_file(made.path)


def test_the_same_student_gives_the_same_bytes(tmp_path: Path) -> None:
    """A file can be compared by its checksum."""
    first = _write("residual_net", 8, 4, tmp_path).path.read_bytes()
    assert _write("residual_net", 8, 4, tmp_path).path.read_bytes() == first


def test_only_the_extra_knows_the_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the message names the extra, and the package imports."""
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.delitem(sys.modules, "ai_edge_litert.schema_py_generated", raising=False)
    with pytest.raises(InputError, match=r"synq-tune\[litert\]"):
        exporter_of("tflite")
    code = "import sys, synq_tune.export.best; print('ai_edge_litert' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_constants_are_read_in_their_shape(tmp_path: Path) -> None:
    """The reference reads nothing but the file."""
    model = read_model(_write("residual_net", 8, 4, tmp_path).path)
    tensors = model.subgraphs[0].tensors
    shapes = {t.name.decode(): constant(model, i) for i, t in enumerate(tensors)}
    assert shapes["conv3.weight"].shape == (1, 3, 3, 16)
    assert shapes["linear.weight"].shape == (10, 16)
    assert shapes["images"] is None
