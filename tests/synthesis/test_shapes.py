"""Pictures of overlapping shapes as a start."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from synq_tune.config import Synthesis
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.seeds import batch_generator
from synq_tune.synthesis.dataset import synthesize
from synq_tune.synthesis.shapes import draw_shapes
from synq_tune.synthesis.start import first_pixels
from tests.synthesis.conftest import MakeSpec


def _low_share(images: Tensor) -> float:
    """Share of the variance in the lowest quarter of frequencies on each axis."""
    power = torch.fft.fft2(images - images.mean((2, 3), keepdim=True)).abs().square()
    is_low = torch.fft.fftfreq(images.shape[-1]).abs() <= 0.125
    return float(power[..., is_low, :][..., is_low].sum() / power.sum())


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (3, 33, 20), (3, 1, 1)])
def test_shapes_fit_any_image(shape: tuple[int, int, int]) -> None:
    """Finite, in normalised pixels' range, whatever the number of channels and the sides."""
    images = draw_shapes(6, shape, batch_generator(0, "images", 0))
    assert images.shape == (6, *shape) and images.dtype == torch.float32
    assert images.isfinite().all() and abs(float(images.mean())) < 1e-5
    assert abs(float(images.std(correction=0)) - 1.1) < 1e-3


def test_shapes_are_seeded() -> None:
    """The same generator gives the same pictures; another one, others; no two images are alike."""
    first, again, other = (
        draw_shapes(4, (3, 16, 16), batch_generator(s, "images", 0)) for s in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert (first[0] - first[1]).abs().mean() > 0.1


def test_shapes_look_like_scenes() -> None:
    """Smooth areas with alike channels, where noise has neither."""
    images = draw_shapes(64, (3, 32, 32), batch_generator(0, "images", 0))
    noise = torch.randn(64, 3, 32, 32, generator=batch_generator(0, "images", 0))
    assert _low_share(images) > 0.7 > 0.2 > _low_share(noise)
    channels = torch.corrcoef(images.transpose(0, 1).flatten(1))
    assert channels[0, 1] > 0.5 and channels[1, 2] > 0.5


def test_edges_are_there() -> None:
    """Neighbouring pixels are mostly alike and sometimes far apart: a heavy tail, unlike a blur's."""
    images = draw_shapes(64, (3, 64, 64), batch_generator(0, "images", 0))
    steps = (images[..., 1:] - images[..., :-1]).flatten()
    kurtosis = steps.pow(4).mean() / steps.square().mean().square()
    assert kurtosis > 6  # 3 for Gaussian noise, blurred or not


@pytest.mark.parametrize("method", ["synq", "noise", "psaq"])
def test_a_method_starts_from_shapes(
    teacher: LoadedTeacher, vit: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path, method: str
) -> None:
    """A step that moves nothing leaves the pictures; the dataset has an address of its own."""
    model = vit if method == "psaq" else teacher
    made = {}
    for start in ("noise", "shapes"):
        spec = make_spec(
            method=method, start=start, iterations=1, lr=1e-9, perturbation=0, batch_size=16
        )
        made[start], _ = synthesize(model, spec, tmp_path, progress=False)
    assert made["noise"].address != made["shapes"].address
    generator = batch_generator(0, "images", 0)
    torch.randint(model.num_classes, (16,), generator=generator)
    pictures = first_pixels(model, "shapes", 16, generator)
    found = made["shapes"].images.float()
    # psaq keeps its pixels within those of valid images.
    inside = pictures.clamp(found.min(), found.max())
    torch.testing.assert_close(found, inside, rtol=1e-3, atol=1e-2)


def test_imported_images_have_no_start() -> None:
    """A start that would be ignored is refused."""
    with pytest.raises(ValidationError, match="start is noise.*method 'images'.*shapes"):
        Synthesis(method="images", source="x.npy", start="shapes")
