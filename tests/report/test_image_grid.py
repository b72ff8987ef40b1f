"""The picture of synthetic images shows every image at a readable size."""

import numpy as np
import pytest
import torch
from PIL import Image

from synq_tune.report.image_grid import save_image_grid


@pytest.mark.parametrize(
    ("count", "channels", "size", "columns", "width"),
    [(40, 1, 8, 16, 1100), (32, 3, 32, 16, 1100), (8, 3, 224, 4, 450)],
    ids=["grey digits", "cifar", "imagenet"],
)
def test_images_are_readable(tmp_path, count, channels, size, columns, width):
    """Every image is shown at least 64 pixels wide, whatever its own size."""
    images = torch.randn(count, channels, size, size)
    path = tmp_path / "grid.png"
    save_image_grid(images, images / 2, [0.5] * channels, [0.2] * channels, path, columns, d0=8)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert width <= picture.width <= 1.4 * width


def test_normalisation_is_undone(tmp_path):
    """A pixel of value v is drawn as v * std + mean."""
    images = torch.zeros(1, 3, 32, 32)
    path = tmp_path / "grid.png"
    save_image_grid(images, images, [1.0, 0.0, 0.2], [1.0, 1.0, 1.0], path)
    with Image.open(path) as picture:
        shown = np.asarray(picture.convert("RGB")).reshape(-1, 3).tolist()
    assert shown.count([255, 0, 51]) >= 2 * 60 * 60


def test_a_last_row_may_be_short(tmp_path):
    """A number of images that does not fill the last row leaves white cells."""
    images = torch.zeros(5, 1, 8, 8)
    save_image_grid(images, images, [0.0], [1.0], tmp_path / "grid.png", columns=3)
    assert (tmp_path / "grid.png").stat().st_size > 0


def test_shapes_must_agree(tmp_path):
    """Different images before and after are refused, and no file is left."""
    with pytest.raises(ValueError, match="of one shape"):
        save_image_grid(
            torch.zeros(2, 1, 8, 8), torch.zeros(3, 1, 8, 8), [0.0], [1.0], tmp_path / "grid.png"
        )
    assert not list(tmp_path.iterdir())
