"""GENIE-D's generator: every size of image, and what it takes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from synq_tune.config.synthesis import GenieSettings
from synq_tune.errors import InputError
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.synthesis.generator import (
    Generated,
    generator_bytes,
    image_generator,
    made_size,
)
from tests.helpers import teacher_of

SMALL = GenieSettings(latent_dim=6, generator_width=5)


def _teacher(channels: int, height: int, width: int) -> LoadedTeacher:
    net = nn.Sequential(
        nn.Conv2d(channels, 2, 1), nn.BatchNorm2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(2, 3),
    )  # fmt: skip
    return teacher_of(net, (channels, height, width))


def _canvas(shape: tuple[int, int, int], count: int = 4) -> Generated:
    torch.manual_seed(0)
    return Generated(_teacher(*shape), SMALL, count, torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("shape", "size"), [
    ((3, 8, 12), (8, 12)), ((1, 5, 5), (8, 8)), ((4, 30, 33), (32, 36)), ((3, 2, 3), (4, 4)),
], ids=str)  # fmt: skip
def test_images_have_the_teachers_shape(shape: tuple[int, int, int], size: tuple[int, int]) -> None:
    """Any number of channels; sides that four does not divide are the middle of the next size."""
    canvas = _canvas(shape)
    made = canvas.network(canvas.latents)
    assert made.shape[2:] == size == made_size(shape)
    top, left = (size[0] - shape[1]) // 2, (size[1] - shape[2]) // 2
    images = canvas.images()
    assert images.shape == (4, *shape)
    assert torch.equal(images, made[:, :, top : top + shape[1], left : left + shape[2]])


def test_a_batch_comes_out_normalised() -> None:
    """Each channel has mean 0 and deviation 1 over the batch, in evaluation as in training."""
    images = _canvas((3, 8, 8)).images()
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        images.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-3, rtol=0
    )


def test_latents_and_generator_learn_at_their_own_rates() -> None:
    """Both are parameters, and every one of them has a gradient."""
    canvas = _canvas((1, 8, 8))
    latents, weights = canvas.parameters()
    assert (latents["lr"], weights["lr"]) == (SMALL.lr_latent, SMALL.lr_generator)
    assert latents["params"][0].shape == (4, 6)
    leaves = latents["params"] + weights["params"]
    gradients = torch.autograd.grad(canvas.images().pow(3).sum(), leaves)
    assert all(gradient.isfinite().all() for gradient in gradients)
    # What is added to a whole channel in front of a BatchNorm is taken off again.
    assert sum(bool(gradient.abs().max() > 1e-4) for gradient in gradients) >= 6


def test_a_mean_over_one_value_is_refused() -> None:
    """A single image of four pixels a side would leave the generator's first BatchNorm nothing."""
    with pytest.raises(InputError, match="batch_size >= 2"):
        _canvas((1, 4, 4), count=1)
    assert _canvas((1, 4, 8), count=1).images().isfinite().all()


def test_its_memory_is_what_is_said() -> None:
    """Four copies of the weights, and every value of a forward pass."""
    network = image_generator((3, 8, 12), SMALL)
    values = []
    for module in network:
        if not isinstance(module, nn.Unflatten):
            module.register_forward_hook(lambda m, x, y: values.append(y.numel()))
    network(torch.randn(7, SMALL.latent_dim))
    weights = sum(p.numel() for p in network.parameters())
    assert generator_bytes((3, 8, 12), SMALL, 7) == 4 * (4 * weights + sum(values))
    # 103 million weights of the first layer at 224 pixels, as in the paper's code.
    large = generator_bytes((3, 224, 224), GenieSettings(), 0) / 16
    assert 102.7e6 < large < 103.5e6
