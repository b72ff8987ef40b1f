"""Sizes computed from shapes are those of the files that are written."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from synq_tune.bench.material import noise_dataset
from synq_tune.config.load import load_space
from synq_tune.models.teacher import load_teacher
from synq_tune.trial.memory import reconstruction_bytes, views_bytes
from synq_tune.views.teacher_cache import load_teacher_cache


@pytest.mark.parametrize("space, sets", [
    ("digits_w3a3", []),
    ("digits_vit_w4a8", []),
    ("digits_w3a3", ["finetune.paste_probability=0.5", "finetune.mix_weight=[0.5, 1.0]"]),
    ("digits_w3a3", ["finetune.cam=mine.py:weigh"]),
])  # fmt: skip
def test_views_take_what_is_said(
    space: str, sets: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every tensor of a view counts, with maps of the network's own size and number."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "def weigh(activations, gradients):\n    return gradients.sum((2, 3))\n"
    )
    spec = load_space(space, [*sets, "synthesis.num_images=6", "finetune.num_views=3"])
    teacher = load_teacher(spec.teacher)
    load_teacher_cache(teacher, noise_dataset(teacher, 6, 2), spec.finetune, tmp_path)
    (path,) = (tmp_path / "views").glob("*.safetensors")
    stored = sum(tensor.nbytes for tensor in load_file(path).values())
    assert views_bytes(spec, teacher) == stored


def test_a_reconstruction_keeps_values_up_to_its_budget() -> None:
    """Four times the largest value of every image, or the budget; nothing where it is off."""
    spec = load_space("digits_genie_w2a2", ["reconstruct.num_images=100"])
    teacher = load_teacher(spec.teacher)
    largest = 8 * 8 * 8 * 4  # bytes of the first stage's maps
    assert reconstruction_bytes(spec, teacher) == 4 * 100 * largest
    small = load_space("digits_genie_w2a2", ["reconstruct.memory_budget=0.001"])
    assert reconstruction_bytes(small, teacher) == 10**6
    assert reconstruction_bytes(load_space("digits_w4a4"), teacher) == 0
