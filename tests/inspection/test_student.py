"""What inspect says is what the student does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18

from synq_tune.commands.inspect import inspect_space
from synq_tune.config import Bits
from synq_tune.config.load import load_space
from synq_tune.errors import InputError
from synq_tune.inspection.student import Inspection, inspect_student
from synq_tune.inspection.table import layer_lines, summary_lines, tensor_lines
from synq_tune.quantization.student import activation_quantizers, quantize_student, weight_layers
from tests.helpers import teacher_of

ROOT = Path(__file__).parents[2]
BITS = Bits(weights=4, activations=4)


@pytest.fixture(scope="module")
def resnet() -> Inspection:
    return inspect_student(quantize_student(teacher_of(resnet18(), (3, 224, 224)), BITS, "minmax"))


def test_macs_are_those_of_the_literature(resnet: Inspection) -> None:
    """ResNet-18 at 224 px: 1.81 billion multiplications (torchvision's table: 1.81 GFLOPS)."""
    assert resnet.macs == 1_814_073_344


def test_the_share_counts_what_reads_integers(resnet: Inspection) -> None:
    """All weights have 4 bits; the stem reads the float image and the classifier pooled floats."""
    assert resnet.weight_share(4) == 100.0
    float_readers = [row.name for row in resnet.layers if row.reads is None]
    assert float_readers == ["conv1", "fc"]
    expected = 100 * (1 - (118_013_952 + 512_000) / resnet.macs)
    assert resnet.share(4, 4) == pytest.approx(expected)


def test_what_is_found_for_synthesis_and_cam(resnet: Inspection) -> None:
    """20 BatchNorms; Grad-CAM at the last convolution, CAM at the final map."""
    assert resnet.num_batchnorms == 20
    assert (resnet.cam_layer, resnet.final_map) == ("layer4.1.conv2", "layer4.1.relu")


def test_every_grid_and_every_layer_has_a_row() -> None:
    """Rows with bits are exactly the student's quantizers."""
    student = quantize_student(teacher_of(resnet18(), (3, 64, 64)), BITS, "minmax")
    inspection = inspect_student(student)
    assert {r.name for r in inspection.layers if r.bits} == set(weight_layers(student))
    with_bits = {f"quantize_{r.name}" for r in inspection.tensors if r.bits}
    assert with_bits == set(activation_quantizers(student))


class _Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.register_buffer("blur", torch.ones(8, 1, 3, 3) / 9)
        self.eca, self.fc = nn.Conv1d(1, 1, 3, padding=1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(F.relu(self.bn(self.conv(x))), self.blur, groups=8)
        gate = self.eca(x.mean((2, 3)).unsqueeze(1)).squeeze(1).sigmoid()
        return self.fc((x * gate[:, :, None, None]).mean((2, 3)))


def test_what_stays_float_says_why() -> None:
    """A fixed filter, a kind of layer that is not quantized, a gate, pooled values, the logits."""
    inspection = inspect_student(quantize_student(teacher_of(_Odd(), (3, 16, 16)), BITS, "minmax"))
    layers = {row.name: row.why for row in inspection.layers}
    assert layers["conv2d"] == "its filter is fixed, not learned"
    assert layers["eca"] == "only Conv2d and Linear are quantized"
    tensors = {row.name: row.why for row in inspection.tensors}
    assert tensors["sigmoid"] == "a gate in [0, 1]"
    assert tensors["mean"] == "pooled values"
    assert tensors["fc"] == "logits"
    assert tensors["x"] == "the network's input"
    assert all(row.bits is not None or row.why for row in inspection.tensors)


def test_the_tables_name_everything(resnet: Inspection) -> None:
    """One line each under a head; the summary has the shares."""
    assert len(layer_lines(resnet)) == 1 + 21
    assert len(tensor_lines(resnet)) == 1 + len(resnet.tensors)
    assert (
        "100.0 % of 1,814.1 M multiplications have 4-bit weights" in summary_lines(resnet, BITS)[0]
    )


@pytest.mark.long
def test_a_network_without_batchnorm_is_refused(tmp_path: Path) -> None:
    """One line, before anything is synthesized from it."""
    spec = load_space("digits_w3a3", [
        "teacher={model: 'torchvision:vgg11', input_size: 32, channels: 3}",
    ])  # fmt: skip
    with pytest.raises(InputError, match="has BatchNorm layers"):
        inspect_space(spec, random_weights=True)


def test_the_script_prints_and_hides_no_standard_module() -> None:
    """A file called inspect.py beside the other scripts must not be taken for Python's own."""
    command = [sys.executable, str(ROOT / "scripts" / "inspect.py"), "--space", "digits_w3a3"]
    out = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert "layer1.0.conv1" in out and "memory" in out
    code = "import inspect; print(inspect.signature(lambda x: x))"
    shadowed = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r}); {code}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shadowed.stdout.strip() == "(x)"
