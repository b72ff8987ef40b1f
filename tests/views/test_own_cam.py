"""A CAM technique of the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from synq_tune.config import FineTune
from synq_tune.data.synthetic import SyntheticDataset
from synq_tune.errors import InputError
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.views.cam import check_technique
from synq_tune.views.teacher_cache import load_teacher_cache

SETTINGS = {"d0": 4.0, "num_views": 2, "crop_scale": None, "flip": False}


@pytest.fixture
def dataset(tmp_path: Path) -> SyntheticDataset:
    images, labels = torch.randn(8, 1, 8, 8).half(), torch.arange(8) % 10
    return SyntheticDataset(images, labels, 2, "x", "0" * 32, "0" * 64, tmp_path, {})


def _name(folder: Path, expression: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    text = f"import torch\ndef weigh(activations, gradients):\n    return {expression}\n"
    (folder / "mine.py").write_text(text)
    return f"{folder / 'mine.py'}:weigh"


def _files(store: Path) -> int:
    return len(list((store / "views").glob("*.safetensors")))


def test_its_maps_are_among_the_views(
    teacher: LoadedTeacher, dataset: SyntheticDataset, tmp_path: Path
) -> None:
    """Grad-CAM written by the user gives Grad-CAM's own maps, boxes and logits."""
    name = _name(tmp_path / "code", "gradients.mean((2, 3))")
    own = load_teacher_cache(teacher, dataset, FineTune(cam=name, **SETTINGS), tmp_path)
    ours = load_teacher_cache(teacher, dataset, FineTune(cam="gradcam", **SETTINGS), tmp_path)
    torch.testing.assert_close(own.saliency[name], ours.saliency["gradcam"])
    assert torch.equal(own.transforms.boxes, ours.transforms.boxes) and torch.equal(
        own.logits, ours.logits
    )


def test_views_are_filed_under_the_source(
    teacher: LoadedTeacher, dataset: SyntheticDataset, tmp_path: Path
) -> None:
    """A changed technique gets new views; the same file in another folder finds the old ones."""
    for folder, expression in (("a", "gradients.sum((2, 3))"), ("b", "gradients.sum((2, 3))")):
        name = _name(tmp_path / folder, expression)
        views = load_teacher_cache(teacher, dataset, FineTune(cam=name, **SETTINGS), tmp_path)
        assert set(views.saliency) == {name} and _files(tmp_path) == 1
    name = _name(tmp_path / "c", "gradients.amax((2, 3))")
    load_teacher_cache(teacher, dataset, FineTune(cam=name, **SETTINGS), tmp_path)
    assert _files(tmp_path) == 2


def test_without_alignment_the_shared_views_are_used(
    teacher: LoadedTeacher, dataset: SyntheticDataset, tmp_path: Path
) -> None:
    """lambda_cam = 0 asks for no map of the user's."""
    config = FineTune(cam="/nowhere/mine.py:weigh", lambda_cam=0.0, **SETTINGS)
    views = load_teacher_cache(teacher, dataset, config, tmp_path)
    assert "gradcam" in views.saliency


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("gradients", r"\(N, C\).*\(2, 3, 4, 5\)"),
        ("gradients.sum()", r"\(N, C\).*got \(\)"),
        ("3", r"\(N, C\).*got int"),
        ("gradients.sum((2, 3)) / 0", "finite floats"),
        ("gradients.sum((2, 3)).long()", "finite floats.*int64"),
    ],
)
def test_wrong_weights_are_one_line(tmp_path: Path, expression: str, message: str) -> None:
    """Asked once before the study starts."""
    with pytest.raises(InputError, match=message):
        check_technique(_name(tmp_path, expression))
