"""What every exporter promises, over networks, quantizers and bit widths."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
import yaml

from synq_tune.config import StudySpec
from synq_tune.export import ALWAYS, EXPORTERS, FILE_NAMES
from synq_tune.export.metadata import METADATA_KEYS
from synq_tune.export.runtime import ONNX_LEVELS, load_model_file
from tests.export.conftest import Exported

CASES = [
    ("digits_resnet26", "minmax", 3, 8),
    ("resnet10", "minmax", 2, 32),
    ("silu_net", "minmax", 4, 8),
    ("silu_net", "lsq", 8, 8),
    ("plain_net", "lsq", 3, 8),
    ("one_sided_net", "minmax", 4, 8),
    ("tiny_deit", "vit_lsq", 4, 8),
    ("residual_net", "lsq", 3, 8, 8),
    ("residual_net", "minmax", 3, 8, 6),
    ("residual_net", "genie", 3, 8),
]
LONG = [pytest.param(case, marks=pytest.mark.long) for case in CASES[:2]]
SLOW = [
    pytest.param(case, marks=pytest.mark.slow)
    for case in (
        ("resnet18", "minmax", 2, 32),
        ("resnet18", "minmax", 3, 32, 6),
        ("mobilenet_v2", "minmax", 8, 64),
        ("tiny_swin", "vit_minmax", 8, 8),
    )
]

Export = Callable[..., Exported]


@pytest.fixture(
    params=[*LONG, *CASES[2:], *SLOW], ids=lambda case: "-".join(map(str, case[:3])), scope="module"
)
def exported(request: pytest.FixtureRequest, export: Export) -> Exported:
    return export(*request.param)


def test_every_format_is_written(exported: Exported) -> None:
    """The five files of design §6, and one for integer hardware where it can run the network."""
    formats = (*ALWAYS, "hardware") if exported.spec.quantizer == "deploy" else ALWAYS
    names = {*(FILE_NAMES[f] for f in formats), "golden.npz", "config.yaml", "parity.json"}
    assert {p.name for p in exported.folder.iterdir()} == names
    assert exported.report["weight_codes"].keys() == set(formats)
    assert FILE_NAMES.keys() == EXPORTERS.keys()


def test_weight_codes_are_identical(exported: Exported) -> None:
    """Not one integer weight differs in any file."""
    for codes in exported.report["weight_codes"].values():
        assert codes["codes"] > 0
        assert codes["mismatches"] == 0


def test_classes_agree_with_the_student(exported: Exported) -> None:
    """The arg-max is the student's at both levels; an exception must be a tie to four digits."""
    for comparison in exported.report["logits"].values():
        assert comparison["images"] == len(exported.images)
        assert all(e["margin"] < 1e-4 for e in comparison["exceptions"])


def test_packed_gives_the_students_logits_to_the_bit(exported: Exported) -> None:
    """The packed file rebuilds the student, not something close to it."""
    assert exported.report["logits"]["packed"]["max_difference"] == 0.0
    assert exported.report["golden"]["packed"]["activation_codes"]["mismatches"] == 0


def test_activation_codes_agree(exported: Exported) -> None:
    """In ONNX hardly a code lies on a rounding edge and flips; a flip moves others later."""
    codes = exported.report["golden"]["onnx"]["activation_codes"]
    with np.load(exported.folder / "golden.npz") as golden:
        first = next(name for name in golden.files if name.startswith("activation/"))
        count = golden[first].size
    assert codes["where"].get(first.removeprefix("activation/"), 0) <= 1e-4 * count
    assert codes["mismatches"] <= 1e-2 * codes["codes"]


@pytest.mark.parametrize("level", ONNX_LEVELS)
def test_onnx_loads_at_every_level(exported: Exported, level: str) -> None:
    """Also with a batch of one, which the exporter never saw."""
    model = load_model_file(exported.folder / "model.onnx", level)
    assert model.logits(torch.rand(1, *model.preprocessing.shape)).shape == (1, model.num_classes)


def test_onnx_has_standard_operators_only(exported: Exported) -> None:
    """One domain, one file, fixed names, a dynamic batch, no traces of the exporting machine."""
    data = (exported.folder / "model.onnx").read_bytes()
    proto = onnx.load_from_string(data)
    assert [o.domain for o in proto.opset_import] == [""]
    assert {n.domain for n in proto.graph.node} == {""}
    assert [i.name for i in proto.graph.input] == ["images"]
    assert [o.name for o in proto.graph.output] == ["logits"]
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert b".py" not in data.replace(exported.python_model.encode(), b"")


@pytest.mark.parametrize("name", [FILE_NAMES[f] for f in ALWAYS])
def test_metadata_are_complete(exported: Exported, name: str) -> None:
    """Each file states its network, its input and its bits."""
    model = load_model_file(exported.folder / name, python_model=exported.python_model)
    teacher = exported.teacher
    assert set(METADATA_KEYS) <= model.metadata.keys()
    assert model.preprocessing == teacher.preprocessing
    assert model.num_classes == teacher.num_classes
    assert model.metadata["model"] == teacher.config.model
    assert model.metadata["bits"] == exported.spec.bits.model_dump()
    assert model.metadata["teacher_fingerprint"] == teacher.fingerprint


@pytest.mark.parametrize("case", CASES[:2], ids=lambda case: case[0])
@pytest.mark.long
def test_packed_is_as_small_as_its_codes(case: tuple[str, str, int, int], export: Export) -> None:
    """k-bit codes, scales, zero points and float tensors, and at most a tenth more."""
    sizes = export(*case).report["sizes"]
    assert sizes["packed"] <= 1.1 * sizes["packed_theoretical"]


def test_config_is_the_whole_spec(exported: Exported) -> None:
    """config.yaml can be read back."""
    tree = yaml.safe_load((exported.folder / "config.yaml").read_text())
    assert StudySpec.model_validate(tree) == exported.spec


def test_golden_values_are_plain_arrays(exported: Exported) -> None:
    """Inputs as the file takes them, logits, codes of weights and activations; no pickle."""
    with np.load(exported.folder / "golden.npz", allow_pickle=False) as golden:
        assert golden["images"].dtype == np.float32
        assert len(golden["images"]) == len(golden["logits"]) == 32
        kinds = {(name.split("/")[0], golden[name].dtype.name) for name in golden.files[2:]}
    assert kinds == {("weight", "int8"), ("activation", "uint8")}
