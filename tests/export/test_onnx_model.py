"""What an ONNX file holds, and the traps of its runtimes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from synq_tune.config import Bits
from synq_tune.export.metadata import describe
from synq_tune.export.onnx_model import write_onnx
from synq_tune.export.onnx_nodes import FLOAT_ZERO_POINT
from synq_tune.export.runtime import ONNX_LEVELS, load_model_file
from synq_tune.quantization.frozen import StandaloneModel, activation_codes, freeze
from tests.export import networks
from tests.export.conftest import Exported

Export = Callable[..., Exported]


def test_values_beyond_the_range_are_clipped(export: Export) -> None:
    """Pixels far outside the calibrated range give the student's codes, at most 2^k - 1."""
    exported = export("digits_resnet26", "minmax", 3, 8)
    images = exported.images * 50
    pixels = exported.teacher.preprocessing.denormalize(images)
    codes = load_model_file(exported.folder / "model.onnx").activation_codes(pixels)
    expected = activation_codes(freeze(exported.student), images)
    first = next(iter(expected))
    assert int(codes[first].max()) == 7
    assert (codes[first] != expected[first]).float().mean() < 1e-3


def test_containers_follow_codes_and_zero_points(export: Export) -> None:
    """INT4 where both fit, INT8 where zero points are larger, float zero points beyond that."""
    onnx_containers = export("one_sided_net", "minmax", 4, 8).report["containers"]["onnx"]
    assert list(onnx_containers["weights"].values()) == ["INT4", "INT8", FLOAT_ZERO_POINT]
    assert onnx_containers["activations"] == "UINT8"
    wide = export("silu_net", "lsq", 8, 8).report["containers"]["onnx"]["weights"]
    assert set(wide.values()) == {"INT8"}


def test_four_bits_take_half_a_byte(export: Export) -> None:
    """INT4 weights are two per byte: the file is smaller than a byte per weight."""
    sizes = export("resnet10", "minmax", 2, 32).report["sizes"]
    assert sizes["onnx"] < sizes["float32"] / 4 * 0.6


@pytest.mark.parametrize("level", ONNX_LEVELS)
def test_biases_are_not_rounded(export: Export, level: str) -> None:
    """At no level a bias before a quantized activation moves to a grid of the runtime's choice."""
    exported = export("plain_net", "lsq", 3, 8)
    model = load_model_file(exported.folder / "model.onnx", level)
    logits = model.logits(exported.teacher.preprocessing.denormalize(exported.images))
    with torch.no_grad():
        assert torch.allclose(logits, exported.student(exported.images), atol=1e-4)


@pytest.mark.parametrize("level", ONNX_LEVELS)
def test_weights_far_from_zero_are_exact(export: Export, level: str) -> None:
    """Nor a weight whose zero point no 8-bit type holds."""
    exported = export("one_sided_net", "minmax", 4, 8)
    model = load_model_file(exported.folder / "model.onnx", level)
    logits = model.logits(exported.teacher.preprocessing.denormalize(exported.images))
    with torch.no_grad():
        expected = exported.student(exported.images)
    assert torch.allclose(logits, expected, rtol=1e-5)


def test_the_same_student_gives_the_same_bytes(export: Export, tmp_path: Path) -> None:
    """Nothing in the file depends on when or where it was written."""
    exported = export("silu_net", "minmax", 4, 8)
    model = StandaloneModel(freeze(exported.student), exported.teacher.preprocessing)
    metadata = describe(exported.teacher, Bits(weights=4, activations=4), "minmax")
    write_onnx(model, metadata, tmp_path / "again.onnx")
    again = (tmp_path / "again.onnx").read_bytes()
    assert again == (exported.folder / "model.onnx").read_bytes()


def test_export_is_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The exporter's progress and warnings stay inside."""
    teacher = networks.teacher("silu_net")
    student, _ = networks.student(teacher, "minmax", 2)
    model = StandaloneModel(freeze(student), teacher.preprocessing)
    write_onnx(model, describe(teacher, Bits(weights=2, activations=2), "minmax"), tmp_path / "m")
    assert capfd.readouterr() == ("", "")


def _session(
    nodes: list[onnx.NodeProto], output: int, values: dict[str, np.ndarray], level: str = "ALL"
) -> onnxruntime.InferenceSession:
    graph = helper.make_graph(
        nodes, "probe", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 4, 4])],
        [helper.make_tensor_value_info("y", output, None)],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = ONNX_LEVELS[level]
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


@pytest.mark.xfail(reason="onnxruntime's ClipQuantRewrite rejects 4-bit types", strict=True)
def test_upstream_clip_before_4_bit_quantize() -> None:
    """Once onnxruntime loads this, activations of up to 4 bits can move from UINT8 to UINT4."""
    values = {
        "w": np.ones((1, 1, 1, 1), np.float32),
        "low": np.array(0.0, np.float32),
        "high": np.array(1.0, np.float32),
        "scale": np.array(0.1, np.float32),
        "zero": np.array(0, helper.tensor_dtype_to_np_dtype(TensorProto.UINT4)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Clip", ["c", "low", "high"], ["d"]),
        helper.make_node("QuantizeLinear", ["d", "scale", "zero"], ["y"]),
    ]
    _session(nodes, TensorProto.UINT4, values)


@pytest.mark.xfail(reason="onnxruntime's WeightBiasQuantization rounds float biases", strict=True)
def test_upstream_float_bias_stays_float() -> None:
    """Once this holds, biases need no node of their own (`_separate_biases`)."""
    values = {
        "scale": np.array(0.5, np.float32),
        "zero": np.array(0, np.uint8),
        "w": np.ones((1, 1, 1, 1), np.int8),
        "b": np.array([0.1], np.float32),  # rounds to 0 on the grid 0.5 · 0.5
        "fine": np.array(0.01, np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "scale"], ["v"]),
        helper.make_node("Conv", ["d", "v", "b"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "fine", "zero"], ["y"]),
    ]
    images = {"x": np.ones((1, 1, 4, 4), np.float32)}
    exact, optimised = (
        _session(nodes, TensorProto.UINT8, values, level).run(None, images)[0]
        for level in ("DISABLE_ALL", "BASIC")
    )
    assert (exact == 60).all()
    assert (optimised == exact).all()
