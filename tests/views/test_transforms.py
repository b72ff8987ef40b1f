"""Views in which a patch of another image is pasted."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from synq_tune.config import FineTune
from synq_tune.views.low_pass import low_pass
from synq_tune.views.transforms import ViewTransforms, base_images, draw_transforms

COUNT = 400
PASTED = FineTune(
    crop_scale=None, flip=False, d0=None, mix_weight=(0.5, 0.9), paste_probability=0.5, num_views=2
)


def _pixels(
    transforms: ViewTransforms, config: FineTune, size: tuple[int, int] = (16, 24)
) -> torch.Tensor:
    """One view of images that are their own number everywhere, (N, 1, H, W)."""
    images = torch.arange(float(COUNT)).view(-1, 1, 1, 1).expand(-1, 1, *size)
    return transforms.pixels(images, 1, torch.arange(COUNT), config)


def test_a_patch_is_the_other_images_and_covers_its_share() -> None:
    """Only values of the two images; the patch's area is 1 - weight, to a pixel at each of its sides."""
    config = PASTED.model_copy(update={"paste_probability": 1.0})
    transforms = draw_transforms(COUNT, config, seed=0)
    pixels = _pixels(transforms, config)
    own, other = torch.arange(COUNT), transforms.partners[1]
    is_other = pixels == other.view(-1, 1, 1, 1)
    assert bool((is_other | (pixels == own.view(-1, 1, 1, 1))).all())
    different = own != other
    area = is_other.float().mean((1, 2, 3))[different]
    torch.testing.assert_close(area, 1 - transforms.weights[1][different], atol=0.08, rtol=0)
    assert abs(float(area.mean()) - 0.3) < 0.02


def test_a_patch_is_one_rectangle_anywhere() -> None:
    """Its rows and columns are neighbours; over the views it reaches every edge."""
    config = PASTED.model_copy(update={"paste_probability": 1.0})
    transforms = draw_transforms(COUNT, config, seed=0)
    is_other = (_pixels(transforms, config) == transforms.partners[1].view(-1, 1, 1, 1))[:, 0]
    is_other = is_other[transforms.partners[1] != torch.arange(COUNT)]
    rows, columns = is_other.any(2), is_other.any(1)
    assert torch.equal(rows[:, :, None] & columns[:, None, :], is_other)
    assert bool((rows.int().diff(dim=1).abs().sum(1) <= 2).all())
    for edge in (rows[:, 0], rows[:, -1], columns[:, 0], columns[:, -1]):
        assert 0 < float(edge.float().mean()) < 0.5


def test_the_other_views_are_blended_as_before() -> None:
    """Half of the views are pasted; the rest, and what was drawn before, are as without pasting."""
    transforms, blended = (
        draw_transforms(COUNT, config, seed=0)
        for config in (PASTED, PASTED.model_copy(update={"paste_probability": 0.0}))
    )
    for name in ("boxes", "flips", "partners", "weights"):
        assert torch.equal(getattr(transforms, name), getattr(blended, name))
    is_blended = transforms.patches[1, :, 2] == 0
    assert 0.4 < float(is_blended.float().mean()) < 0.6
    plain = PASTED.model_copy(update={"paste_probability": 0.0})
    pixels, expected = _pixels(transforms, PASTED), _pixels(blended, plain)
    assert torch.equal(pixels[is_blended], expected[is_blended])


def test_pasted_views_keep_their_contrast() -> None:
    """`mix_keeps_variance` divides blends only: a pasted view has the contrast of its images already."""
    noise = torch.randn(COUNT, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    config = PASTED.model_copy(update={"mix_keeps_variance": True})
    transforms = draw_transforms(COUNT, config, seed=0)
    pixels = transforms.pixels(noise, 0, torch.arange(COUNT), config)
    is_pasted = transforms.patches[0, :, 2] > 0
    for part in (pixels[is_pasted], pixels[~is_pasted]):
        assert float(part.std()) == pytest.approx(1.0, abs=0.02)


def test_patches_need_a_range_of_weights() -> None:
    """A patch's area is 1 minus the weight."""
    with pytest.raises(ValidationError, match="`mix_weight is set` must hold with paste_prob"):
        FineTune(paste_probability=0.5)


PLAIN = FineTune(crop_scale=None, flip=False, d0=2.0, num_views=2)


@pytest.mark.parametrize("before", [False, True])
def test_the_filter_is_applied_once(before: bool) -> None:
    """To each view, or to the images before they are cut, and never to both."""
    config = PLAIN.model_copy(update={"filter_before_crop": before})
    images = torch.randn(COUNT, 1, 8, 8)
    base = base_images(images, config)
    pixels = draw_transforms(COUNT, config, 0).pixels(base, 0, torch.arange(COUNT), config)
    torch.testing.assert_close(pixels, low_pass(images, 2.0), atol=3e-3, rtol=0)


def test_only_a_recipe_that_mirrors_does() -> None:
    """Half the images of each view then, none otherwise, whatever the crops."""
    for flip, share in ((True, 0.5), (False, 0.0)):
        config = PLAIN.model_copy(update={"flip": flip, "crop_scale": (0.5, 1.0)})
        flips = draw_transforms(COUNT, config, 0).flips.float()
        assert float((flips.mean(1) - share).abs().max()) < 0.1
