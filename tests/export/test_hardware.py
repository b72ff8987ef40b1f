"""`model.hardware.onnx`: what integer runtimes fuse, and what they then compute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from synq_tune.commands.evaluate import evaluate_file
from synq_tune.config import Bits
from synq_tune.errors import InputError
from synq_tune.export import exporter_of, formats_of
from synq_tune.export.hardware import prepared, reads_integers
from synq_tune.export.metadata import describe
from synq_tune.export.onnx_model import write_onnx
from synq_tune.export.options import HARDWARE, OnnxOptions
from synq_tune.export.runtime import ONNX_LEVELS, PRECISE, OnnxFile, load_model_file
from synq_tune.quantization.frozen import StandaloneModel, freeze, frozen_layers
from tests.export import networks
from tests.export.conftest import Exported

Export = Callable[..., Exported]
NETWORKS = [("residual_net", 8), ("mobilenet_v2", 64)]
SOME_SLOW = [NETWORKS[0], pytest.param(*NETWORKS[1], marks=pytest.mark.slow)]
FUSED = {
    "residual_net": {"QLinearConv": 3, "QLinearAdd": 1, "QLinearGlobalAveragePool": 1, "QGemm": 1},
    "mobilenet_v2": {"QLinearConv": 16, "QLinearAdd": 2, "QLinearGlobalAveragePool": 1, "QGemm": 1},
}


def _write(exported: Exported, path: Path, options: OnnxOptions = HARDWARE) -> OnnxFile:
    model = StandaloneModel(freeze(exported.student), exported.teacher.preprocessing)
    metadata = describe(exported.teacher, exported.spec.bits, exported.spec.quantizer)
    write_onnx(model, metadata, path, options)
    return load_model_file(path, "ALL")


def _operators(path: Path, folder: Path) -> Counter[str]:
    """Operators of the graph that onnxruntime runs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ONNX_LEVELS["EXTENDED"]
    options.add_session_config_entry(PRECISE, "1")
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


@pytest.mark.parametrize(("network", "size"), SOME_SLOW)
def test_every_operation_becomes_an_integer_kernel(
    export: Export, network: str, size: int, tmp_path: Path
) -> None:
    """onnxruntime leaves no float convolution, sum, pooling or product."""
    exported = export(network, "deploy", 8, size)
    operators = _operators(exported.folder / "model.hardware.onnx", tmp_path)
    assert {name: operators[name] for name in FUSED[network]} == FUSED[network]
    assert not operators.keys() & {"Conv", "Gemm", "MatMul", "Add", "ReduceMean", "Relu", "Clip"}
    assert not operators.keys() & {"BatchNormalization", "GlobalAveragePool", "DequantizeLinear"}


@pytest.mark.parametrize("level", ONNX_LEVELS)
@pytest.mark.parametrize(("network", "size"), SOME_SLOW)
def test_integer_kernels_give_the_students_classes(
    export: Export, network: str, size: int, level: str
) -> None:
    """At every level, up to steps of the activation grids."""
    exported = export(network, "deploy", 8, size)
    model = load_model_file(exported.folder / "model.hardware.onnx", level)
    logits = model.logits(exported.teacher.preprocessing.denormalize(exported.images))
    with torch.no_grad():
        expected = exported.student(exported.images)
    assert (logits - expected).abs().max() < 0.05 * expected.abs().max()
    top = expected.topk(2).values
    clear = top[:, 0] - top[:, 1] > 2 * (logits - expected).abs().max()
    assert clear.any()
    assert torch.equal(logits.argmax(1)[clear], expected.argmax(1)[clear])


@pytest.mark.long
def test_optimised_and_plain_graphs_agree(export: Export) -> None:
    """Integer kernels compute what the file says, up to an odd rounding."""
    exported = export("residual_net", "deploy", 8)
    pixels = exported.teacher.preprocessing.denormalize(exported.images)
    path = exported.folder / "model.hardware.onnx"
    plain, fused = (load_model_file(path, level).logits(pixels) for level in ("DISABLE_ALL", "ALL"))
    assert ((plain - fused).abs() < 1e-4).float().mean() > 0.9


def test_it_is_written_when_hardware_can_run_the_network(export: Export) -> None:
    """Decided by the network: every layer reads a grid and no weight has a zero point."""
    deploy, lsq = (export("residual_net", q, 8) for q in ("deploy", "lsq"))
    assert formats_of(freeze(deploy.student))[:3] == ("onnx", "packed", "hardware")
    assert not reads_integers(freeze(lsq.student))
    assert not (lsq.folder / "model.hardware.onnx").exists()


def test_parity_and_golden_know_the_absorbed_codes(export: Export) -> None:
    """Codes of channels with a negative gamma differ from the student's, none from the file's."""
    exported = export("residual_net", "deploy", 8)
    frozen = freeze(exported.student)
    own, absorbed = frozen_layers(frozen), frozen_layers(prepared(frozen, HARDWARE))
    assert any(not torch.equal(own[n].codes, absorbed[n].codes) for n in own)
    assert exported.report["weight_codes"]["hardware"]["mismatches"] == 0
    assert exported.report["golden"]["hardware"]["weight_codes"]["mismatches"] == 0
    codes = exported.report["golden"]["hardware"]["activation_codes"]
    assert codes["mismatches"] < 0.05 * codes["codes"]
    assert {"hardware BASIC", "hardware ALL"} <= exported.report["logits"].keys()


def test_a_layer_called_twice_runs_in_integers(export: Export) -> None:
    """Each call has its own copy of the weight: onnxruntime refuses a file in which two share one."""
    exported = export("shared_net", "deploy", 8)
    exceptions = [
        e for n, r in exported.report["logits"].items() if "hardware" in n for e in r["exceptions"]
    ]
    assert "hardware ALL" in exported.report["logits"] and not exceptions


@pytest.mark.long
def test_a_wide_stream_is_rounded_again_in_integers(export: Export) -> None:
    """Layers read 3 bits of what sums read in 8; integer runtimes get both grids."""
    exported = export("residual_net", "deploy", 3, 8, 8)
    assert formats_of(freeze(exported.student))[:3] == ("onnx", "packed", "hardware")
    assert exported.report["weight_codes"]["hardware"]["mismatches"] == 0
    # Biases lie on the accumulator's grid, a part of a 3-bit step but several steps of what is stored.
    codes = exported.report["golden"]["hardware"]["activation_codes"]
    flips = [
        codes["where"].get(f"quantize_{n}", 0) for n in ("relu_port", "relu_1", "relu_2", "mean")
    ]
    assert sum(flips) < 0.05 * codes["codes"]
    with np.load(exported.folder / "golden.npz") as golden:
        stored, read = (golden[f"activation/quantize_relu{end}"] for end in ("", "_port"))
    assert stored.max() > 7 >= read.max()


@pytest.mark.long
def test_learned_rounding_runs_on_integer_hardware(export: Export) -> None:
    """`genie_deploy` stands on the grids of `deploy`: every layer in integers, the same codes."""
    exported = export("residual_net", "genie_deploy", 4)
    assert formats_of(freeze(exported.student))[:3] == ("onnx", "packed", "hardware")
    assert exported.report["weight_codes"]["hardware"]["mismatches"] == 0


@pytest.mark.long
def test_weights_are_int8_and_biases_int32(export: Export) -> None:
    """Whatever the bits; each bias on the grid of its accumulator."""
    exported = export("residual_net", "deploy", 3)
    proto = onnx.load(exported.folder / "model.hardware.onnx")
    tensors = {t.name: t for t in proto.graph.initializer}
    for name in ("conv1", "conv2", "conv3", "linear"):
        assert tensors[f"{name}.codes"].data_type == onnx.TensorProto.INT8
        assert tensors[f"{name}.bias.codes"].data_type == onnx.TensorProto.INT32


@torch.no_grad()
def test_a_bias_too_large_for_int32_widens_its_channel(export: Export) -> None:
    """A gamma next to 0 leaves the bias; the channel's steps grow until it fits."""
    exported = export("residual_net", "deploy", 8)
    frozen = freeze(exported.student)
    frozen.norm1.weight[0], frozen.norm1.weight[1] = 1e-12, -1e-30
    images = exported.images
    new = prepared(frozen, HARDWARE)
    assert new.conv1.bias_codes.abs().max() <= 2**30
    assert torch.allclose(new.conv1.bias[:2], frozen.norm1.bias[:2], atol=1e-4)
    assert (new(images) - frozen(images)).abs().max() < 0.05 * frozen(images).abs().max()


def test_weights_with_zero_points_are_refused(export: Export) -> None:
    """One line names the layer and what to do."""
    frozen = freeze(export("residual_net", "minmax", 4).student)
    with pytest.raises(InputError, match="got layer=conv1 .* quantizer: deploy"):
        prepared(frozen, HARDWARE)


def test_a_fixed_batch_takes_any_number_of_images(export: Export, tmp_path: Path) -> None:
    """The last batch is filled up and cut; also for activation codes."""
    exported = export("residual_net", "deploy", 8)
    fixed = _write(exported, tmp_path / "m.onnx", replace(HARDWARE, batch_size=3))
    free = load_model_file(exported.folder / "model.hardware.onnx", "ALL")
    assert fixed.session.get_inputs()[0].shape == [3, 3, 8, 8]
    images = torch.rand(7, 3, 8, 8)
    assert torch.allclose(fixed.logits(images), free.logits(images), atol=1e-4)
    assert {len(c) for c in fixed.activation_codes(images).values()} == {7}


def test_a_file_without_normalisation_is_fed_normalised_images(
    export: Export, tmp_path: Path
) -> None:
    """Its metadata say so, and whoever loads it here need not know."""
    exported = export("residual_net", "deploy", 8)
    bare = _write(exported, tmp_path / "m.onnx", replace(HARDWARE, normalize=False))
    assert bare.metadata["normalized_input"] is True
    assert not {"Sub", "Div"} & {node.op_type for node in bare.proto.graph.node}
    whole = load_model_file(exported.folder / "model.hardware.onnx", "ALL")
    images = torch.rand(8, 3, 8, 8)
    assert torch.allclose(bare.logits(images), whole.logits(images), atol=1e-4)


@pytest.mark.long
def test_evaluate_takes_it(tmp_path: Path) -> None:
    """Labelled images and golden values of the bundled network."""
    teacher = networks.teacher("digits_resnet26")
    student, _ = networks.student(teacher, "deploy", 8)
    model = StandaloneModel(freeze(student), teacher.preprocessing)
    metadata = describe(teacher, Bits(weights=8, activations=8), "deploy")
    exporter_of("hardware", 1, False)(model, metadata, tmp_path / "m.onnx")
    assert evaluate_file(str(tmp_path / "m.onnx"), "digits")[-1].startswith("top1 ")


def test_packed_files_have_no_batch_size() -> None:
    """Refused before any work."""
    with pytest.raises(InputError, match="Use --format onnx or hardware"):
        exporter_of("packed", batch_size=1)
    with pytest.raises(InputError, match="batch_size >= 1"):
        exporter_of("onnx", batch_size=0)
