"""A synthesis method of the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from synq_tune import own_code
from synq_tune.errors import InputError
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.synthesis.dataset import synthesize
from tests.synthesis.conftest import MakeSpec

HEAD = """
import torch
def make(teacher, config, folder, show):
    n = config.num_images + config.num_holdout
    x, y = torch.randn(n, 1, 8, 8), torch.arange(n) % 10
"""


def _name(folder: Path, body: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(f"{HEAD}    {body}\n")
    return f"{folder / 'mine.py'}:make"


def test_its_images_become_the_dataset(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """Stored like ours, found again, and seeded although it draws from torch's own generator."""
    spec = make_spec(method=_name(tmp_path, "return x, y"))
    first, reused = synthesize(teacher, spec, tmp_path / "a", progress=False)
    again, reused_again = synthesize(teacher, spec, tmp_path / "a", progress=False)
    fresh, _ = synthesize(teacher, spec, tmp_path / "b", progress=False)
    assert not reused and reused_again and first.sha256 == again.sha256 == fresh.sha256
    assert first.images.dtype == torch.float16 and first.method == "mine.py:make"
    assert first.provenance["settings"]["method"]["source_sha256"]


def test_the_address_follows_the_source_not_the_folder(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """The same file elsewhere is the same dataset; another text is another."""
    names = [_name(tmp_path / "a", "return x, y"), _name(tmp_path / "b", "return x, y")]
    changed = _name(tmp_path / "c", "return x, y.flip(0)")
    made = [
        synthesize(teacher, make_spec(method=name), tmp_path / "store", progress=False)
        for name in (*names, changed)
    ]
    assert [reused for _, reused in made] == [False, True, False]
    assert made[0][0].address == made[1][0].address != made[2][0].address


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return x", r"GeneratedImages or \(images, labels\).*got Tensor"),
        ("return x.double(), y", "float32 or float16.*float64"),
        ("return x.numpy(), y", "float32 or float16.*ndarray"),
        ("return x[1:], y", r"\(16, 1, 8, 8\).*\(15, 1, 8, 8\)"),
        ("return x * 1e6, y", "finite in float16.*16 images"),
        ("return x, y.float()", "integers.*float32"),
        ("return x, y[1:]", r"\(16,\).*\(15,\)"),
        ("return x, y + 1", "0 <= label < 10.*from 1 to 10"),
    ],
)
def test_a_wrong_answer_is_one_line(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path, body: str, message: str
) -> None:
    """Nothing is stored, and the line says what is wrong with the answer."""
    spec = make_spec(method=_name(tmp_path, body))
    with pytest.raises(InputError, match=message):
        synthesize(teacher, spec, tmp_path / "store", progress=False)
    address = tmp_path / "store/datasets"
    assert not [p for p in address.iterdir() if p.is_dir() and not p.name.endswith(".partial")]


def test_a_draft_keeps_its_notes(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """What the method noted stands in the manifest."""
    body = "import synq_tune.synthesis.method as m; return m.Draft(x, y, {'why': 'mine'})"
    name = _name(tmp_path, body)
    dataset, _ = synthesize(teacher, make_spec(method=name), tmp_path / "s", progress=False)
    assert dataset.provenance["why"] == "mine"
    assert own_code.label(name) == dataset.method
