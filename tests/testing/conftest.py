"""Images to import."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def array(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty random images as an `.npy` file, for `method: images`."""
    path = tmp_path_factory.mktemp("array") / "images.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8), dtype=np.uint8))
    return path
