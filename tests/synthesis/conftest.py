"""The bundled digits teacher, and digits spaces with a handful of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from synq_tune.config import StudySpec, Teacher
from synq_tune.config.load import load_space
from synq_tune.models.teacher import LoadedTeacher, load_teacher

SMALL = {
    "num_images": 12,
    "num_holdout": 4,
    "batch_size": 6,
    "iterations": 3,
    "center_iterations": 2,
}

MakeSpec = Callable[..., StudySpec]


@pytest.fixture(scope="session")
def vit() -> LoadedTeacher:
    """The bundled transformer; tests leave it as it is."""
    return load_teacher(Teacher(model="digits_vit", channels=1, num_classes=10))


@pytest.fixture(scope="session")
def array(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty random images as an `.npy` file, for `method: images`."""
    path = tmp_path_factory.mktemp("array") / "images.npy"
    pixels = np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8), dtype=np.uint8)
    np.save(path, pixels)
    return path


@pytest.fixture
def make_spec(array: Path) -> MakeSpec:
    """make_spec(space="digits_w3a3", **synthesis) → the space with a small dataset."""

    def make(space: str = "digits_w3a3", **synthesis: object) -> StudySpec:
        if synthesis.get("method") == "images":
            synthesis.setdefault("source", str(array))
        settings = {**SMALL, **synthesis}
        return load_space(space, flags={"synthesis": settings})

    return make
