"""`model.pte`: the same integers in PyTorch, and by ExecuTorch's kernels where it is installed."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

from synq_tune.commands.evaluate import evaluate_file
from synq_tune.commands.export import refuse_shifted_weights
from synq_tune.config import Bits, StudySpec
from synq_tune.errors import InputError
from synq_tune.export import exporter_of
from synq_tune.export.best import export_student
from synq_tune.export.executorch_graph import Int8Activation, Int8Network, logit_grid
from synq_tune.export.hardware import prepared
from synq_tune.export.logit_range import logit_range
from synq_tune.export.metadata import describe
from synq_tune.export.options import HARDWARE
from synq_tune.export.runtime import load_model_file
from synq_tune.quantization.frozen import FrozenActivation, StandaloneModel, freeze
from tests.export import networks

INSTALLED = pytest.mark.skipif(
    find_spec("executorch") is None, reason="the extra executorch is not installed"
)
NETWORKS = ("residual_net", "silu_net", "shared_net", "preactivation_net")


def _model(name: str, bits: int, quantizer: str = "deploy") -> tuple[StandaloneModel, torch.Tensor]:
    """The frozen student, and images in [0, 1]."""
    teacher = networks.teacher(name, (3, 16, 16))
    student, images = networks.student(teacher, quantizer, bits)
    model = StandaloneModel(freeze(student), teacher.preprocessing).eval()
    return model, teacher.preprocessing.denormalize(images)


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_int8_holds_the_same_values(name: str, bits: int) -> None:
    """The logits are those of the hardware form, rounded once more, at any width."""
    model, images = _model(name, bits)
    scale, zero = logit_grid(*logit_range(model, images))
    made = Int8Network(model, (scale, zero))(images)
    expected = StandaloneModel(prepared(model.frozen, HARDWARE), model.preprocessing)(images)
    # A value beside the middle of two codes may fall the other way: 1 / scale is a factor there.
    assert float(((made - expected).abs() <= 0.51 * scale).float().mean()) > 0.9
    assert float((made - expected).abs().max()) <= 3 * scale


@pytest.mark.parametrize("bits", [8, 3])
def test_a_grid_ends_where_int8_ends(bits: int) -> None:
    """What is above saturates; what is below is clipped where something can be."""
    grid = FrozenActivation(torch.tensor(0.1), torch.tensor(1.0), bits)
    made = Int8Activation(grid, clips_below=bits < 8)
    x = torch.linspace(-40, 40, 4001)
    codes = made(x)
    assert codes.dtype == torch.int8
    assert int(codes.max()) == 127
    assert int(codes.min()) == 127 - (2**bits - 1)
    values = (codes.float() - made.zero_point) * made.scale
    torch.testing.assert_close(values, grid(x), rtol=0, atol=1e-6)


def test_the_logits_grid_has_a_zero() -> None:
    """Also where all logits of the range have one sign."""
    for low, high in ((-3.0, 5.0), (0.5, 2.0), (-2.0, -1.0)):
        scale, zero = logit_grid(low, high)
        assert scale > 0 and -128 <= zero <= 127
    scale, zero = logit_grid(-3.0, 5.0)
    assert abs((-128 - zero) * scale + 3.0) <= scale and abs((127 - zero) * scale - 5.0) <= scale


def test_a_layer_that_reads_floats_is_refused_by_name() -> None:
    """The paper's grids leave the image in float."""
    model, _ = _model("residual_net", 8, "vit_lsq")
    with pytest.raises(InputError, match="reads a float"):
        Int8Network(model, (0.1, 0))


def test_weights_with_zero_points_are_refused_before_any_work() -> None:
    """As for the other integer formats."""
    bits = Bits(weights=8, activations=8)
    spec = StudySpec(name="x", teacher={"model": "digits_resnet26"}, quantizer="lsq", bits=bits)
    with pytest.raises(InputError, match="quantizer=lsq"):
        refuse_shifted_weights(spec, "pte")


def test_only_the_extra_knows_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the message names the extra; with it the package imports none of it."""
    for name in ("executorch", "executorch.exir"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"synq-tune\[executorch\]"):
        exporter_of("pte")
    code = "import sys, synq_tune.export.best; print('executorch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


@INSTALLED
@pytest.mark.slow
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", ["residual_net", "silu_net", "shared_net", "mobilenet_v2"])
def test_no_logit_differs_on_xnnpack(name: str, bits: int, tmp_path: Path) -> None:
    """The whole network is delegated; portable kernels, which sum floats, may differ in few."""
    teacher = networks.teacher(name, (3, 16, 16))
    student, images = networks.student(teacher, "deploy", bits)
    spec = StudySpec(
        name="x", teacher=teacher.config, quantizer="deploy",
        bits=Bits(weights=bits, activations=bits),
    )  # fmt: skip
    report = export_student(student, teacher, spec, tmp_path, images, images, ("pte",))
    counts = report["executorch"]
    assert counts["XNNPACK"]["codes"] > 100
    assert counts["XNNPACK"]["mismatches"] == 0
    assert counts["portable"]["mismatches"] <= 0.05 * counts["portable"]["codes"]
    assert report["logits"]["pte"]["images"] == len(images)


@INSTALLED
@pytest.mark.slow
def test_what_the_runtime_cannot_run_is_refused(tmp_path: Path) -> None:
    """XNNPACK's compiler takes more than its runtime; nothing is written then."""
    model, images = _model("gated_net", 8)
    teacher = networks.teacher("gated_net", (3, 16, 16))
    metadata = describe(teacher, Bits(weights=8, activations=8), "deploy")
    with pytest.raises(InputError, match="takes the program"):
        exporter_of("pte", images=images)(model, metadata, tmp_path / "model.pte")
    assert not list(tmp_path.iterdir())


@INSTALLED
@pytest.mark.slow
def test_the_file_says_how_to_use_it(tmp_path: Path) -> None:
    """Batch size and normalisation are in it; `evaluate.py` reads it; a cut one is refused."""
    teacher = networks.teacher("digits_resnet26")
    student, images = networks.student(teacher, "deploy", 8)
    model = StandaloneModel(freeze(student), teacher.preprocessing).eval()
    metadata = describe(teacher, Bits(weights=8, activations=8), "deploy")
    path, pixels = tmp_path / "model.pte", teacher.preprocessing.denormalize(images)
    with pytest.raises(InputError, match="batch_size >= 1"):
        exporter_of("pte", 0)
    exporter_of("pte", 4, False, pixels)(model, metadata, path)
    file = load_model_file(path)
    assert file.metadata["batch_size"] == 4 and file.metadata["normalized_input"]
    assert file.metadata["teacher_fingerprint"] == teacher.fingerprint
    logits, expected = file.logits(pixels[:6]), model(pixels[:6])
    assert float((logits - expected).abs().max()) < 0.05 * float(expected.abs().max())
    assert evaluate_file(str(path), "digits")[-1].endswith("% on 896 images")
    with pytest.raises(InputError, match="must hold"):
        load_model_file(networks.cut(path, 0.5))


UPSTREAM = "executorch 1.5: mended upstream if this passes; docs/deploy.md and this file can follow"


def _on(x: torch.Tensor, scale: float, low: int, high: int) -> torch.Tensor:
    ops = torch.ops.quantized_decomposed
    codes = ops.quantize_per_tensor(x, scale, 0, low, high, torch.int8)
    return ops.dequantize_per_tensor(codes, scale, 0, low, high, torch.int8)


class _Limited(nn.Module):
    """Limits of a grid that are narrower than int8's own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _on(_on(x, 0.01, -128, 127) + _on(x, 0.01, -128, 127), 0.01, 0, 7)


@INSTALLED
@pytest.mark.slow
@pytest.mark.xfail(strict=True, reason=UPSTREAM)
def test_upstream_limits_of_a_grid_are_heeded() -> None:
    """XNNPACK takes int8's own limits whatever is declared."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
    from executorch.runtime import Runtime

    x = torch.rand(1, 3, 8, 8)
    program = to_edge_transform_and_lower(
        torch.export.export(_Limited().eval(), (x,), strict=False),
        partitioner=[XnnpackPartitioner()],
        compile_config=EdgeCompileConfig(_check_ir_validity=False),
    ).to_executorch()
    method = Runtime.get().load_program(bytes(program.buffer)).load_method("forward")
    torch.testing.assert_close(method.execute([x])[0], _Limited()(x), rtol=0, atol=0.005)
