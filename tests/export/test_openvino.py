"""`model.openvino.xml` holds the student's codes, and OpenVINO computes its classes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from synq_tune.cli.export import main as export_main
from synq_tune.commands.evaluate import evaluate_file
from synq_tune.commands.runtimes import runtimes_table
from synq_tune.config import Bits, StudySpec
from synq_tune.errors import InputError
from synq_tune.export import exporter_of
from synq_tune.export.best import export_student
from synq_tune.export.metadata import describe
from synq_tune.export.runtime import load_model_file
from synq_tune.quantization.frozen import StandaloneModel, freeze, frozen_layers
from tests.export import networks

NAME = "model.openvino.xml"


def test_only_the_extra_knows_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the message names the extra; with it the package imports none of it."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match=r"synq-tune\[openvino\]"):
        exporter_of("openvino")
    code = "import sys, synq_tune.export.best; print('openvino' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_mlflow_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    """A run's folder holds what every search writes."""
    with pytest.raises(SystemExit):
        export_main(["--run", "0" * 32, "--format", "openvino"])
    assert "--study" in capsys.readouterr().err


pytest.importorskip("openvino", reason="the extra openvino is not installed")


def _export(
    name: str, quantizer: str, bits: int, folder: Path, normalize: bool = True, at_once: int = 0
) -> tuple[StandaloneModel, Tensor, Path]:
    """The frozen student, images in [0, 1] and the .xml file."""
    teacher = networks.teacher(name, (3, 16, 16))
    student, images = networks.student(teacher, quantizer, bits)
    model = StandaloneModel(freeze(student), teacher.preprocessing).eval()
    metadata = describe(teacher, Bits(weights=bits, activations=bits), quantizer)
    write = exporter_of("openvino", at_once or None, normalize)
    write(model, metadata, folder / NAME)
    return model, teacher.preprocessing.denormalize(images), folder / NAME


QUICK = [("residual_net", "deploy", 8), ("silu_net", "lsq", 4), ("gated_net", "minmax", 3)]
CODED = [
    *QUICK,
    *(
        pytest.param(name, quantizer, bits, marks=pytest.mark.long)
        for name, quantizer in (
            ("residual_net", "deploy"), ("silu_net", "lsq"), ("gated_net", "minmax"),
            ("shared_net", "lsq"), ("residual_net", "genie_deploy"),
        )
        for bits in (8, 4, 3)
        if (name, quantizer, bits) not in QUICK
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "quantizer", "bits"), CODED)
def test_codes_are_the_students(name: str, quantizer: str, bits: int, tmp_path: Path) -> None:
    """Of every layer, in half a byte where they fit; of values but for odd roundings."""
    model, pixels, path = _export(name, quantizer, bits, tmp_path)
    file = load_model_file(path)
    expected = {n: w.codes for n, w in frozen_layers(model.frozen).items()}
    found = file.weight_codes()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[n], codes) for n, codes in expected.items())
    logits = model(pixels)
    assert float((file.logits(pixels) - logits).abs().mean()) < 0.05 * float(logits.abs().max())
    codes = file.activation_codes(pixels)
    grids = dict(model.frozen.named_modules())
    assert codes
    assert all(int(values.max()) < 2**bits for values in codes.values())
    if "quantize_x" in codes:
        normalised = (pixels - model.mean) / model.std
        assert torch.equal(codes["quantize_x"], grids["quantize_x"].codes(normalised))


@pytest.mark.long
def test_four_bits_take_half_a_byte(tmp_path: Path) -> None:
    """The tensors' file of the 4-bit network is smaller by nearly half the weights."""
    wide = _export("mobilenet_v2", "deploy", 8, tmp_path)[2].with_suffix(".bin").stat().st_size
    model, _, path = _export("mobilenet_v2", "deploy", 4, tmp_path)
    weights = sum(w.codes.numel() for w in frozen_layers(model.frozen).values())
    assert wide - path.with_suffix(".bin").stat().st_size > 0.4 * weights


@pytest.mark.parametrize(("normalize", "at_once"), [(False, 0), (True, 3), (False, 3)])
@pytest.mark.long
def test_a_fixed_batch_and_normalised_input(normalize: bool, at_once: int, tmp_path: Path) -> None:
    """Any number of images still gets its logits, the last batch being filled up."""
    _, pixels, plain = _export("residual_net", "deploy", 8, tmp_path / "plain")
    _, _, path = _export("residual_net", "deploy", 8, tmp_path / "other", normalize, at_once)
    expected, given = (load_model_file(p).logits(pixels[:7]) for p in (plain, path))
    assert given.shape == expected.shape
    torch.testing.assert_close(given, expected, rtol=0, atol=float(expected.abs().max()) * 0.05)


@pytest.mark.long
def test_parity_golden_probes_and_accuracy_read_it(tmp_path: Path) -> None:
    """As every other format; its size is that of both files."""
    teacher = networks.teacher("digits_resnet26")
    student, images = networks.student(teacher, "deploy", 8)
    bits = Bits(weights=8, activations=8)
    spec = StudySpec(name="x", teacher=teacher.config, quantizer="deploy", bits=bits)
    report = export_student(student, teacher, spec, tmp_path, images, images, ("openvino",))
    assert report["weight_codes"]["openvino"]["mismatches"] == 0
    assert report["logits"]["openvino"]["agreement"] > 90
    golden = report["golden"]["openvino"]
    assert golden["weight_codes"]["mismatches"] == 0
    # OpenVINO computes in integers too; without VNNI instructions its sums of products saturate.
    assert golden["activation_codes"]["mismatches"] < 0.2 * golden["activation_codes"]["codes"]
    both = sum((tmp_path / NAME).with_suffix(end).stat().st_size for end in (".xml", ".bin"))
    assert report["sizes"]["openvino"] == both
    row = next(li for li in runtimes_table([tmp_path / NAME], rounds=1) if "OpenVINO" in li)
    assert [cell.strip() for cell in row.split("|")[4:6]] == ["yes", "yes"]
    assert evaluate_file(str(tmp_path / NAME), "digits")[-1].endswith("% on 896 images")


def test_what_is_no_whole_file_of_ours_is_refused(tmp_path: Path) -> None:
    """Cut, alone, or another's."""
    _, pixels, path = _export("residual_net", "deploy", 8, tmp_path)
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(InputError, match="OpenVINO reads the model"):
        load_model_file(path)
    path.write_text(text.replace("synq_tune", "other"))
    with pytest.raises(InputError, match="exported by synq-tune"):
        load_model_file(path)
    path.write_text(text)
    path.with_suffix(".bin").unlink()
    with pytest.raises(InputError, match=r"model\.openvino\.bin lies beside it"):
        load_model_file(path)
