"""Packed files: rebuilt exactly, or refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from synq_tune.config import Bits, Teacher
from synq_tune.errors import InputError
from synq_tune.export.metadata import describe
from synq_tune.export.packed import build_packed, packed_bytes, read_packed, write_packed
from synq_tune.models.teacher import load_teacher
from synq_tune.quantization.frozen import StandaloneModel, freeze
from tests.export import networks
from tests.export.conftest import Exported

Export = Callable[..., Exported]


def _rebuilt(path: Path, python_model: str | None = None) -> StandaloneModel:
    return build_packed(*read_packed(path), path, python_model)


def _write(
    path: Path, network: str, quantizer: str, bits: int, skip: int | None = None
) -> tuple[StandaloneModel, str]:
    teacher = networks.teacher(network)
    student, _ = networks.student(teacher, quantizer, bits, skip=skip)
    model = StandaloneModel(freeze(student), teacher.preprocessing).eval()
    widths = Bits(weights=bits, activations=bits, skip=skip)
    write_packed(model, describe(teacher, widths, quantizer), path)
    return model, teacher.config.model


@pytest.mark.parametrize("quantizer", ["minmax", "lsq"])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("network", ["digits_resnet26", "silu_net", "one_sided_net"])
def test_round_trip_is_exact(tmp_path: Path, network: str, quantizer: str, bits: int) -> None:
    """The rebuilt module gives the same bits, whatever the width."""
    path = tmp_path / "m.safetensors"
    model, name = _write(path, network, quantizer, bits)
    images = torch.rand(8, *model.preprocessing.shape)
    with torch.no_grad():
        assert torch.equal(_rebuilt(path, name)(images), model(images))


@pytest.mark.parametrize("quantizer", ["vit_minmax", "vit_lsq"])
@pytest.mark.parametrize("network", ["tiny_deit", "tiny_swin"])
def test_transformers_come_back_exactly(tmp_path: Path, network: str, quantizer: str) -> None:
    """Attention is written out by the reader too, ports and grids on parameters included."""
    path = tmp_path / "m.safetensors"
    model, name = _write(path, network, quantizer, 4)
    images = torch.rand(8, *model.preprocessing.shape)
    with torch.no_grad():
        assert torch.equal(_rebuilt(path, name)(images), model(images))


@pytest.mark.parametrize(
    ("network", "quantizer"),
    [
        *itertools.product(("digits_resnet26", "residual_net"), ("minmax", "lsq", "deploy")),
        *itertools.product(("tiny_deit", "tiny_swin"), ("vit_minmax", "deploy")),
    ],
)
def test_wide_skips_come_back_exactly(tmp_path: Path, network: str, quantizer: str) -> None:
    """The reader branches layers off the stream where the student did."""
    path = tmp_path / "m.safetensors"
    model, name = _write(path, network, quantizer, 3, skip=8)
    images = torch.rand(8, *model.preprocessing.shape)
    with torch.no_grad():
        assert torch.equal(_rebuilt(path, name)(images), model(images))


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_digits_file_has_little_overhead(tmp_path: Path, bits: int) -> None:
    """Header and all, the bundled network stays within a tenth of codes, grids and floats."""
    path = tmp_path / "m.safetensors"
    model, _ = _write(path, "digits_resnet26", "minmax", bits)
    assert path.stat().st_size <= 1.1 * packed_bytes(model.frozen)


def test_same_student_same_bytes(tmp_path: Path) -> None:
    """Nothing in the file depends on when it was written."""
    _write(tmp_path / "a", "plain_net", "minmax", 3)
    _write(tmp_path / "b", "plain_net", "minmax", 3)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_own_code_runs_only_when_named(tmp_path: Path) -> None:
    """A file that names Python code is refused until the user names the same code."""
    path = tmp_path / "m.safetensors"
    _write(path, "plain_net", "minmax", 3)
    with pytest.raises(InputError, match="--python-model python:tests.export.networks:plain_net"):
        _rebuilt(path)


def test_own_file_is_named_without_its_folder(tmp_path: Path) -> None:
    """The model file tells no folder of the exporting machine, and opens where the code lies now."""
    made, moved = tmp_path / "made/net.py", tmp_path / "moved/net.py"
    text = Path(networks.__file__).read_text()
    for place in (made, moved):
        place.parent.mkdir()
        place.write_text(text)
    settings = {"mean": (0.5,) * 3, "std": (0.2,) * 3, "input_size": 8}
    teacher = load_teacher(Teacher(model=f"{made}:plain_net", **settings))
    student, images = networks.student(teacher, "minmax", 3)
    model = StandaloneModel(freeze(student), teacher.preprocessing).eval()
    path = tmp_path / "m.safetensors"
    write_packed(model, describe(teacher, Bits(weights=3, activations=3), "minmax"), path)
    assert str(tmp_path).encode() not in path.read_bytes()
    with pytest.raises(InputError, match="--python-model FOLDER/net.py:plain_net"):
        _rebuilt(path)
    pixels = torch.rand(4, *model.preprocessing.shape)
    with torch.no_grad():
        assert torch.equal(_rebuilt(path, f"{moved}:plain_net")(pixels), model(pixels))


def _rewrite(path: Path, change: Callable[[dict, dict], None]) -> None:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(metadata, tensors)
    save_file(tensors, path, metadata)


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    """The SHA-256 in the header covers tensors and metadata."""
    path = tmp_path / "m.safetensors"
    _write(path, "digits_resnet26", "minmax", 3)
    _rewrite(path, lambda metadata, tensors: tensors["codes"][:1].add_(1))
    with pytest.raises(InputError, match="SHA-256"):
        _rebuilt(path)


def test_another_network_is_refused(tmp_path: Path) -> None:
    """A library that builds something else under the same name is named as the reason."""
    path = tmp_path / "m.safetensors"
    teacher = networks.teacher("digits_resnet26")
    student, _ = networks.student(teacher, "minmax", 3)
    model = StandaloneModel(freeze(student), teacher.preprocessing).eval()
    metadata = describe(teacher, Bits(weights=3, activations=3), "minmax")
    write_packed(model, {**metadata, "num_classes": 7}, path)
    with pytest.raises(InputError, match="builds the exported network"):
        _rebuilt(path)
