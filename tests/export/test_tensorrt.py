"""`model.tensorrt.onnx`: signed codes without zero points, which ONNX Runtime checks here."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from synq_tune.config import Bits, StudySpec
from synq_tune.errors import InputError
from synq_tune.export import exporter_of
from synq_tune.export.best import export_student
from synq_tune.export.metadata import describe
from synq_tune.export.runtime import load_model_file
from synq_tune.quantization.frozen import StandaloneModel, freeze, frozen_activations
from synq_tune.quantization.lsq import SymmetricLsqActivation
from tests.export import networks

NAME = "model.tensorrt.onnx"


def _model(name: str, quantizer: str, bits: int = 8) -> StandaloneModel:
    teacher = networks.teacher(name, (3, 8, 8))
    student, _ = networks.student(teacher, quantizer, bits)
    return StandaloneModel(freeze(student), teacher.preprocessing).eval()


@pytest.mark.parametrize("name", ["residual_net", "silu_net", "shared_net"])
def test_every_grid_is_around_zero(name: str, tmp_path: Path) -> None:
    """What TensorRT's documents ask for: int8 codes, zero points 0, float biases, one batch size."""
    teacher = networks.teacher(name, (3, 8, 8))
    student, images = networks.student(teacher, "deploy_symmetric", 8)
    spec = StudySpec(
        name="x", teacher=teacher.config, quantizer="deploy_symmetric",
        bits=Bits(weights=8, activations=8),
    )  # fmt: skip
    report = export_student(student, teacher, spec, tmp_path, images, images, ("tensorrt",))
    proto = onnx.load(tmp_path / NAME)
    tensors = {t.name: t for t in proto.graph.initializer}
    kinds = ("QuantizeLinear", "DequantizeLinear")
    nodes = [n for n in proto.graph.node if n.op_type in kinds]
    assert {n.op_type for n in nodes} == set(kinds)
    for node in nodes:
        zero = tensors[node.input[2]]
        assert zero.data_type == TensorProto.INT8
        assert not numpy_helper.to_array(zero).any()
    assert not any(n.op_type == "Clip" for n in proto.graph.node)
    assert TensorProto.INT32 not in {t.data_type for t in proto.graph.initializer}
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    assert report["weight_codes"]["tensorrt"]["mismatches"] == 0
    golden = report["golden"]["tensorrt"]
    assert golden["weight_codes"]["mismatches"] == 0
    assert golden["activation_codes"]["codes"] > 1000
    assert golden["activation_codes"]["mismatches"] < 0.01 * golden["activation_codes"]["codes"]
    assert report["logits"]["tensorrt BASIC"]["agreement"] > 95


def test_other_grids_are_refused_by_name(tmp_path: Path) -> None:
    """Zero points of values, fewer bits, zero points of weights; nothing is written."""
    for quantizer, bits, said in (
        ("deploy", 8, "quantizer: deploy_symmetric"), ("deploy_symmetric", 4, "with 4 bits"),
        ("lsq", 8, "weights have zero point 0"),
    ):  # fmt: skip
        write = exporter_of("tensorrt")
        with pytest.raises(InputError, match=said):
            write(_model("silu_net", quantizer, bits), {}, tmp_path / NAME)
    assert not list(tmp_path.iterdir())


def test_the_batch_is_what_was_asked_for(tmp_path: Path) -> None:
    """One image where nothing is said."""
    teacher = networks.teacher("residual_net", (3, 8, 8))
    metadata = describe(teacher, Bits(weights=8, activations=8), "deploy_symmetric")
    exporter_of("tensorrt", 4)(
        _model("residual_net", "deploy_symmetric"), metadata, tmp_path / NAME
    )
    proto = onnx.load(tmp_path / NAME)
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 4
    assert load_model_file(tmp_path / NAME).logits(torch.rand(6, 3, 8, 8)).shape == (6, 10)


@pytest.mark.parametrize("bits", [8, 4, 3])
def test_the_grid_is_the_best_of_those_around_zero(bits: int) -> None:
    """Zero is a code, and no step of 200 tried on the sample has an error clearly below its own."""
    x = torch.randn(4000, generator=torch.Generator().manual_seed(1))
    grid = SymmetricLsqActivation(bits)
    grid.observe(x)
    grid.end_calibration()
    low, high = grid.limits

    def error(step: torch.Tensor) -> float:
        return float(
            ((x / step.detach()).round().clamp(low, high) * step.detach() - x).square().mean()
        )

    scale, zero = grid.qparams()
    assert float(zero) == 0.0
    tried = torch.linspace(0.1, 1.2, 200) * x.abs().max() / high
    assert error(scale) < 1.15 * min(error(step) for step in tried)


def test_no_grid_of_values_has_a_zero_point() -> None:
    """Half of the codes lie below zero, whether a value does or not."""
    frozen = _model("residual_net", "deploy_symmetric").frozen
    grids = frozen_activations(frozen)
    assert grids and all(not g.zero_point.any() for g in grids.values())
