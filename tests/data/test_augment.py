"""Batched crops and flips."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from synq_tune.data.augment import crop_and_flip, random_boxes

WHOLE = torch.tensor([[0.0, 0.0, 1.0, 1.0]])


def _no_flips(count: int) -> torch.Tensor:
    return torch.zeros(count, dtype=torch.bool)


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (33, 17), (224, 224)])
def test_whole_image_without_flip_is_identity(size: tuple[int, int]) -> None:
    """The box (0, 0, 1, 1) changes no pixel."""
    images = torch.randn(2, 3, *size)
    out = crop_and_flip(images, WHOLE.expand(2, 4), _no_flips(2))
    torch.testing.assert_close(out, images, rtol=0, atol=1e-6)


def test_flip_mirrors_left_and_right() -> None:
    """Only the flagged images are mirrored."""
    images = torch.randn(2, 3, 8, 8)
    out = crop_and_flip(images, WHOLE.expand(2, 4), torch.tensor([True, False]))
    torch.testing.assert_close(out[0], images[0].flip(-1), rtol=0, atol=1e-6)
    torch.testing.assert_close(out[1], images[1], rtol=0, atol=1e-6)


def test_crop_equals_slicing_and_resizing() -> None:
    """A box on pixel borders is the slice, resized with bilinear interpolation inside it."""
    images = torch.randn(1, 2, 8, 8)
    out = crop_and_flip(images, torch.tensor([[0.25, 0.5, 0.5, 0.5]]), _no_flips(1))
    expected = F.interpolate(images[:, :, 2:6, 4:8], size=(8, 8), mode="bilinear")
    # At the box's border the crop sees its neighbours, the slice does not.
    torch.testing.assert_close(out[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])


def test_crop_equals_grid_sample() -> None:
    """Random boxes and flips give what an affine grid gives."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(16, 1, 12, 12, generator=generator)
    boxes = random_boxes(16, (0.2, 1.0), generator)
    flips = torch.rand(16, generator=generator) < 0.5
    top, left, height, width = boxes.unbind(1)
    zero, sign = torch.zeros(16), torch.where(flips, -1.0, 1.0)
    rows = (sign * width, zero, 2 * left + width - 1, zero, height, 2 * top + height - 1)
    grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), [16, 1, 12, 12], align_corners=False)
    expected = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(crop_and_flip(images, boxes, flips), expected, rtol=0, atol=1e-5)


def test_constant_images_stay_constant() -> None:
    """Weights of every pixel sum to one."""
    boxes = random_boxes(50, (0.05, 1.0), torch.Generator().manual_seed(0))
    out = crop_and_flip(torch.full((50, 1, 8, 8), 3.0), boxes, torch.rand(50) < 0.5)
    torch.testing.assert_close(out, torch.full((50, 1, 8, 8), 3.0))


def test_gradient_reaches_the_pixels() -> None:
    """The crop is differentiable (finite differences)."""
    images = torch.randn(2, 1, 5, 4, dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor([[0.1, 0.2, 0.7, 0.5], [0.0, 0.3, 1.0, 0.6]])
    assert torch.autograd.gradcheck(
        lambda x: crop_and_flip(x, boxes, torch.tensor([True, False])), images
    )


def test_boxes_lie_inside_and_have_their_area() -> None:
    """No box leaves the image; areas lie in the range, aspects in [3/4, 4/3]."""
    boxes = random_boxes(2000, (0.3, 0.9), torch.Generator().manual_seed(0))
    top, left, height, width = boxes.unbind(1)
    assert boxes.shape == (2000, 4) and boxes.dtype == torch.float32 and boxes.min() >= 0
    assert (top + height).max() <= 1 + 1e-6 and (left + width).max() <= 1 + 1e-6
    area, aspect = height * width, width / height
    assert 0.3 - 1e-5 <= area.min() < 0.31 and 0.89 < area.max() <= 0.9 + 1e-5
    assert aspect.min() >= 0.75 - 1e-5 and aspect.max() <= 4 / 3 + 1e-5


def test_area_one_is_the_whole_image() -> None:
    """Where no room is left for an aspect, the box is the image."""
    boxes = random_boxes(10, (1.0, 1.0), torch.Generator().manual_seed(0))
    torch.testing.assert_close(boxes, WHOLE.expand(10, 4), rtol=0, atol=1e-6)


def test_boxes_follow_the_generator() -> None:
    """The same seed draws the same boxes."""
    draws = [random_boxes(5, (0.5, 1.0), torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("scale", [(0.0, 1.0), (0.5, 1.1), (0.9, 0.5)])
def test_an_impossible_scale_is_an_error(scale: tuple[float, float]) -> None:
    """Areas are shares of the image, the smaller one first."""
    with pytest.raises(ValueError, match="low <= high <= 1"):
        random_boxes(1, scale, torch.Generator())
