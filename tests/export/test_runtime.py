"""Loading model files: what is refused, and how a file is measured."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from synq_tune.cli import evaluate
from synq_tune.commands.ending import exit_code
from synq_tune.commands.evaluate import evaluate_file
from synq_tune.data.labelled import load_labelled
from synq_tune.errors import InputError
from synq_tune.export import ALWAYS, FILE_NAMES
from synq_tune.export.compare import LogitComparison, code_mismatches
from synq_tune.export.golden import check_golden, write_golden
from synq_tune.export.runtime import load_model_file, rows_of_images
from synq_tune.quantization.frozen import StandaloneModel, freeze
from tests.export import networks
from tests.export.conftest import Exported
from tests.export.networks import cut

Export = Callable[..., Exported]


@pytest.fixture(scope="module")
def digits(export: Export) -> Exported:
    return export("digits_resnet26", "minmax", 3, 8)


@pytest.mark.parametrize("name", [FILE_NAMES[f] for f in ALWAYS])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(digits: Exported, name: str, share: float) -> None:
    """Cut anywhere, a model file gives one clear error."""
    with pytest.raises(InputError, match="must hold"):
        load_model_file(cut(digits.folder / name, share))


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    """Missing, of another kind, or written by somebody else."""
    for name in ("none.onnx", "notes.txt", "foreign.safetensors"):
        path = tmp_path / name
        if name != "none.onnx":
            path.write_bytes(b"hello")
        with pytest.raises(InputError, match="must hold"):
            load_model_file(path)


def test_images_of_another_shape_are_refused(digits: Exported) -> None:
    """The file knows its input."""
    with pytest.raises(InputError, match=r"images have shape \[1, 8, 8\]"):
        load_model_file(digits.folder / "model.onnx").logits(torch.rand(2, 3, 8, 8))


def test_batches_do_not_matter(digits: Exported) -> None:
    """One image at a time gives what all give at once."""
    model = load_model_file(digits.folder / "model.onnx")
    images = torch.rand(5, 1, 8, 8)
    assert torch.allclose(model.logits(images, 2), model.logits(images), atol=1e-5)


@pytest.mark.parametrize("name", [FILE_NAMES[f] for f in ALWAYS])
def test_evaluate_ends_with_the_accuracy(
    digits: Exported, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`top1 NN.NN % on N images`, and it is the student's."""
    folder = digits.folder
    argv = ["--model", str(folder / name), "--val-data", "digits"]
    assert exit_code(evaluate.main, [*argv, "--golden", str(folder / "golden.npz")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("golden: ")
    match = re.fullmatch(r"top1 (\d+\.\d\d) % on (\d+) images", lines[-1])
    data = load_labelled("digits", digits.teacher.preprocessing, 10)
    with torch.no_grad():
        logits = digits.student(digits.teacher.preprocessing.normalize(data.images))
    top1 = 100 * (logits.argmax(1) == data.labels).double().mean()
    assert int(match[2]) == len(data)
    assert float(match[1]) == pytest.approx(float(top1), abs=0.25)


def test_evaluate_refuses_what_is_no_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and one line."""
    (tmp_path / "x.onnx").write_bytes(b"hello")
    argv = ["--model", str(tmp_path / "x.onnx"), "--val-data", "digits"]
    assert exit_code(evaluate.main, argv) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_golden_values_of_another_student_are_noticed(digits: Exported, tmp_path: Path) -> None:
    """The same network with other weight codes is not the student the values belong to."""
    student, images = networks.student(digits.teacher, "lsq", 3)
    other = StandaloneModel(freeze(student), digits.teacher.preprocessing)
    write_golden(other, images, tmp_path / "golden.npz")
    model = str(digits.folder / "model.packed.safetensors")
    with pytest.raises(InputError, match="weight codes are the golden ones"):
        evaluate_file(model, "digits", str(tmp_path / "golden.npz"))


def test_a_truncated_golden_file_is_refused(digits: Exported) -> None:
    """As every other file."""
    model = load_model_file(digits.folder / "model.packed.safetensors")
    with pytest.raises(InputError, match="whole npz"):
        check_golden(model, cut(digits.folder / "golden.npz", 0.5))


def test_every_exception_is_named() -> None:
    """Index over all batches, both classes, and how near the student's tie was."""
    comparison = LogitComparison()
    comparison.add(torch.eye(3), torch.eye(3))
    comparison.add(torch.tensor([[0.0, 2.0, 1.5]]), torch.tensor([[0.0, 1.5, 2.0]]))
    report = comparison.report()
    assert report["exceptions"] == [{"index": 3, "student": 1, "file": 2, "margin": 0.5}]
    assert (report["images"], report["agreement"], report["max_difference"]) == (4, 75.0, 0.5)


def test_missing_codes_count_as_different() -> None:
    """A layer that a file lacks cannot pass."""
    codes = {"a": torch.zeros(3), "b": torch.zeros(2)}
    report = code_mismatches(codes, {"a": torch.tensor([0.0, 1.0, 0.0])})
    assert report["where"] == {"a": 1, "b": 2}


def test_values_whose_first_axis_is_not_the_images_are_whole() -> None:
    """Queries, keys and values of 12 images, (3, 12, …), once came back as no rows at all."""
    values = np.arange(36, dtype=np.uint8).reshape(3, 12)
    assert rows_of_images([values], 12, 12, is_fed=True).tolist() == values.tolist()
    filled = rows_of_images([np.zeros((8, 2), np.uint8)] * 2, 16, 12, is_fed=True)
    assert filled.shape == (12, 2)
