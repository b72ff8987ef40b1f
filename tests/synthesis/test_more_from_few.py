"""Settings that make few images worth more: spread labels, a canvas beyond the image, smoothing."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from synq_tune.config import Synthesis
from synq_tune.config.load import load_space
from synq_tune.config.synthesis import SynqSettings
from synq_tune.errors import SearchSpaceError
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.synthesis.batches import batch_sizes
from synq_tune.synthesis.canvas import WidePixels, gaussian_kernel, pixel_canvas, smooth
from synq_tune.synthesis.dataset import synthesize
from synq_tune.synthesis.labels import batch_labels

SMALL = [
    "synthesis.num_images=24", "synthesis.num_holdout=8", "synthesis.batch_size=12",
    "synthesis.iterations=3", "synthesis.center_iterations=1", "synthesis.perturbation=0",
]  # fmt: skip


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(("classes", "images"), [(10, 25), (100, 25), (7, 700), (2, 3)])
def test_even_labels_differ_by_one_at_most(classes: int, images: int) -> None:
    """Over all batches of a dataset, whatever their number; no class twice before each came once."""
    config = SynqSettings(num_images=images, num_holdout=5, batch_size=9, labels="even")
    total, labels = images + 5, []
    for number, size in enumerate(batch_sizes(total, 9)):
        labels.append(batch_labels(classes, config, number, size, _generator()))
    counts = torch.cat(labels).bincount(minlength=classes)
    assert len(torch.cat(labels)) == total
    assert counts.max() - counts.min() <= 1


def test_random_labels_are_the_batchs_own() -> None:
    """As they were before there was a choice."""
    labels = batch_labels(10, SynqSettings(), 0, 50, _generator())
    assert torch.equal(labels, torch.randint(10, (50,), generator=_generator()))


@pytest.mark.parametrize("deviation", [0.5, 1.0, 2.5])
def test_smoothing_is_the_gaussian(deviation: float) -> None:
    """Against SciPy's, cut at the same radius, the outermost pixel repeated."""
    images = torch.randn(2, 3, 20, 24, generator=_generator())
    radius = math.ceil(2 * deviation)
    expected = gaussian_filter(
        images.numpy(), sigma=(0, 0, deviation, deviation), mode="nearest", radius=radius
    )
    found = smooth(images, gaussian_kernel(deviation, torch.device("cpu")))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_the_window_moves_and_the_image_is_the_middle() -> None:
    """Every place of the canvas is shown at some time; the images never change by looking."""
    start = torch.arange(14.0 * 14).view(1, 1, 14, 14)
    canvas = WidePixels(start, margin=3, smoothing=0.0, generator=_generator())
    assert torch.equal(canvas.images(), start[:, :, 3:11, 3:11])
    corners = {canvas.shown()[0, 0, 0, 0].item() for _ in range(500)}
    assert corners == {float(14 * row + column) for row in range(7) for column in range(7)}
    assert canvas.shown().shape == canvas.images().shape


def test_gradients_reach_the_margin(teacher: LoadedTeacher) -> None:
    """What the window shows beyond the image is optimised too."""
    canvas = pixel_canvas(teacher, SynqSettings(margin=2, smoothing=0.5), 3, _generator())
    (pixels,) = canvas.parameters()
    assert pixels.shape == (3, 1, 12, 12)
    for _ in range(30):
        canvas.shown().sum().backward()
    assert (pixels.grad != 0).all()


CHANGES = [
    {"margin": 2}, {"smoothing": 0.7}, {"labels": "even"}, {"spread": "deviation"},
    {"alpha_layered": 0.0},
]  # fmt: skip


def test_each_setting_makes_other_images(tmp_path: Path, teacher: LoadedTeacher) -> None:
    """None is ignored, and none shares a dataset with another."""
    spec = load_space("digits_w3a3", SMALL)
    made = []
    for change in [{}, *CHANGES]:
        synthesis = spec.synthesis.model_copy(update=change)
        changed = spec.model_copy(update={"synthesis": synthesis})
        made.append(synthesize(teacher, changed, tmp_path, progress=False)[0])
    assert len({dataset.address for dataset in made}) == len(made)
    assert len({dataset.sha256 for dataset in made}) == len(made)
    assert all(dataset.train_images.shape == (24, 1, 8, 8) for dataset in made)


def test_without_the_layered_loss_no_centre_is_made(
    tmp_path: Path, teacher: LoadedTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For ImageNet they would be a thousand images that nothing reads."""
    monkeypatch.setattr(
        "synq_tune.synthesis.synq.make_centers", lambda *_: pytest.fail("centres were made")
    )
    spec = load_space("digits_w3a3", [*SMALL, "synthesis.alpha_layered=0"])
    assert synthesize(teacher, spec, tmp_path, progress=False)[0].num_holdout == 8


@pytest.mark.parametrize("change", ["margin=2", "smoothing=0.5", "labels=even", "spread=deviation"])
@pytest.mark.parametrize("method", ["psaq", "images"])
def test_methods_that_do_not_read_it_refuse_it(method: str, change: str) -> None:
    """A setting that would be ignored is an error."""
    source = ["synthesis.source=/x"] if method == "images" else []
    space = "digits_vit_w4a8" if method == "psaq" else "digits_w3a3"
    with pytest.raises(SearchSpaceError, match=change.split("=")[0]):
        load_space(space, [f"synthesis.method={method}", *source, f"synthesis.{change}"])


def test_a_default_counts_in_no_address() -> None:
    """Datasets that were made before these settings existed are found."""
    asked = Synthesis().part(SynqSettings).address()
    assert not {"margin", "smoothing", "labels", "spread"} & asked.keys()
    assert SynqSettings(margin=1).address()["margin"] == 1
