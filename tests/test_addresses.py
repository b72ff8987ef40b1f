"""What stored datasets and views are called: a new version finds what an older one made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from synq_tune.config import FineTune, ViewSettings
from synq_tune.config.load import load_space
from synq_tune.data.synthetic import SyntheticDataset
from synq_tune.models.teacher import LoadedTeacher, load_teacher
from synq_tune.synthesis.dataset import synthesize
from synq_tune.views.teacher_cache import load_teacher_cache
from synq_tune.views.transforms import draw_transforms

SMALL = {
    "num_images": 6, "num_holdout": 2, "batch_size": 8, "iterations": 1, "center_iterations": 1,
}  # fmt: skip
OWN = """import torch
def make(teacher, config, folder, show):
    return torch.zeros(8, 1, 8, 8), torch.zeros(8, dtype=torch.int64)
"""
DATASETS = {
    "synq": ("digits_w3a3", {}, "4ae863203bee32989b386ee29c7301e4"),
    "synq, not perturbed": (
        "digits_w3a3",
        {"perturbation": 0, "crop_scale": [0.5, 1.0]},
        "2e0d36e75f14b610240278f6c0243fbb",
    ),
    "noise": (
        "digits_w3a3",
        {"method": "noise", "precision": "bfloat16"},
        "dd49f4d5254ab4a7da4116277c443ffb",
    ),
    "psaq": (
        "digits_vit_w4a8",
        {"method": "psaq", "start": "shapes"},
        "e0d1b71339ede99d76a4a3da44b22e7c",
    ),
    "genie": (
        "digits_w3a3",
        {"method": "genie", "latent_dim": 4},
        "487f8d287285d0675a3bb43888338a4e",
    ),
    "zeroq": ("digits_w3a3", {"method": "zeroq", "lr": 0.25}, "f4cb36c9644618025061412e412357ab"),
    "intraq": (
        "digits_w3a3",
        {"soft_target": 0.95, "alpha_band": 1.0, "perturbation": 0},
        "4ab95798f7f833d00f70a6a536b6a330",
    ),
    "images": (
        "digits_w3a3",
        {"method": "images", "source": "ARRAY"},
        "f9df11e1b2035dff9a551e0e444075b9",
    ),
    "own": ("digits_w3a3", {"method": "OWN"}, "130032ea778eb2920916d379497b09af"),
}
VIEWS = {
    "defaults": ({"num_views": 1}, "2b3e924db882ed941eb3d891316dbd72"),
    "others": (
        {"num_views": 2, "d0": None, "crop_scale": None, "flip": False, "mix_weight": [0.5, 1.0]},
        "fe2524c44151a2669b13c0c84a847ead",
    ),
}


def _sources(folder: Path) -> dict[str, str]:
    """Files whose content is the same in every run."""
    (folder / "mine.py").write_text(OWN)
    np.save(folder / "images.npy", np.arange(8 * 8 * 8, dtype=np.uint8).reshape(8, 1, 8, 8))
    return {"OWN": f"{folder / 'mine.py'}:make", "ARRAY": str(folder / "images.npy")}


@pytest.mark.parametrize(("space", "changes", "address"), DATASETS.values(), ids=DATASETS)
def test_datasets_keep_their_addresses(
    tmp_path: Path, space: str, changes: dict[str, object], address: str
) -> None:
    """Pinned: another address would make every stored dataset anew."""
    files = _sources(tmp_path)
    changes = {k: files.get(v, v) if isinstance(v, str) else v for k, v in changes.items()}
    spec = load_space(space, flags={"synthesis": {**SMALL, **changes}})
    dataset, _ = synthesize(load_teacher(spec.teacher), spec, tmp_path / "store", progress=False)
    assert dataset.address == address


@pytest.mark.parametrize(("changes", "address"), VIEWS.values(), ids=VIEWS)
def test_views_keep_their_addresses(
    teacher: LoadedTeacher, tmp_path: Path, changes: dict[str, object], address: str
) -> None:
    """Pinned: another address would ask the teacher about every stored view again."""
    images, labels = torch.zeros(8, 1, 8, 8).half(), torch.arange(8)
    dataset = SyntheticDataset(images, labels, 2, "x", "0" * 32, "0" * 64, tmp_path, {})
    load_teacher_cache(teacher, dataset, FineTune(**changes), tmp_path)
    assert [file.stem for file in (tmp_path / "views").glob("*.safetensors")] == [address]


def test_views_are_made_from_the_settings_in_their_address() -> None:
    """No other field of a trial can change a view: what makes one is given the address's fields alone."""
    images = torch.randn(4, 1, 8, 8)
    trial = FineTune(mix_weight=(0.5, 1.0), num_views=2, d0=3.0, lr=0.1, cam="cam", tau=None)
    index = torch.arange(4)
    shown = [
        draw_transforms(4, config, seed=0).pixels(images, 1, index, config)
        for config in (trial, trial.part(ViewSettings))
    ]
    assert torch.equal(*shown)
    assert ViewSettings.model_fields.keys() < FineTune.model_fields.keys()
