"""Images out of latents: GENIE-D's generator, the canvas of one batch.

Linear → BatchNorm → twice as large → 3×3 convolution → BatchNorm → leaky ReLU → twice as large →
3×3 convolution → tanh → BatchNorm without weights. The last one gives a batch's channels mean 0 and
deviation 1, so that images come out normalised; nothing is clamped.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from synq_tune.config.synthesis import GeneratorSettings
from synq_tune.errors import InputError
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.synthesis.canvas import Canvas
from synq_tune.synthesis.optimize import device_of

_GROWTH = 4
"""The first maps are doubled twice."""
_SLOPE = 0.2


class Generated(Canvas):
    """Latents (N, latent_dim) and a generator of their own."""

    def __init__(
        self,
        teacher: LoadedTeacher,
        config: GeneratorSettings,
        count: int,
        generator: torch.Generator,
    ) -> None:
        """Start from latents of N(0, 1) and from weights as torch draws them.

        Args:
            teacher: says what an image is.
            config: sizes and rates.
            count: number of images N.
            generator: on the CPU; draws the latents.

        Raises:
            InputError: one image of four pixels or fewer would be its own mean.
        """
        shape, device = teacher.preprocessing.shape, device_of(teacher)
        if count * math.prod(_seed_size(shape)) < 2:
            raise InputError(
                "`synthesis.batch_size >= 2` must hold for a generator of images of at most "
                f"{_GROWTH}×{_GROWTH} pixels, but got a batch of {count}."
            )
        self._config, self._size = config, shape[1:]
        latents = torch.randn(count, config.latent_dim, generator=generator)
        self.latents = latents.to(device).requires_grad_()
        self.network = image_generator(shape, config).to(device)

    def parameters(self) -> list[Any]:
        """Latents and weights, each with its rate."""
        return [
            {"params": [self.latents], "lr": self._config.lr_latent},
            {"params": list(self.network.parameters()), "lr": self._config.lr_generator},
        ]

    def images(self) -> Tensor:
        """(N, C, H, W) float32, of the middle where the generator makes more."""
        made, (height, width) = self.network(self.latents), self._size
        top, left = (made.shape[2] - height) // 2, (made.shape[3] - width) // 2
        return made[:, :, top : top + height, left : left + width]


def image_generator(shape: tuple[int, int, int], config: GeneratorSettings) -> nn.Sequential:
    """Latents (N, latent_dim) → images (N, C, H', W') of the next sizes that four divides.

    Args:
        shape: (C, H, W) of an image.
        config: sizes.
    """
    rows, columns = _seed_size(shape)
    wide, narrow = config.generator_width, config.generator_width // 2
    return nn.Sequential(
        nn.Linear(config.latent_dim, wide * rows * columns),
        nn.Unflatten(1, (wide, rows, columns)),
        _normalise(wide),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(wide, narrow, 3, padding=1),
        _normalise(narrow),
        nn.LeakyReLU(_SLOPE),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(narrow, shape[0], 3, padding=1),
        nn.Tanh(),
        _normalise(shape[0], affine=False),
    )


def _normalise(channels: int, affine: bool = True) -> nn.BatchNorm2d:
    """Over the batch at hand, always: the generator serves no other."""
    return nn.BatchNorm2d(channels, affine=affine, track_running_stats=False)


def _seed_size(shape: tuple[int, int, int]) -> tuple[int, int]:
    return -(-shape[1] // _GROWTH), -(-shape[2] // _GROWTH)


def made_size(shape: tuple[int, int, int]) -> tuple[int, int]:
    """Height and width that a generator makes for images (C, H, W): the next that four divides."""
    rows, columns = _seed_size(shape)
    return _GROWTH * rows, _GROWTH * columns


def generator_bytes(shape: tuple[int, int, int], config: GeneratorSettings, count: int) -> int:
    """float32 of weights, gradients and Adam's two moments, and of what a forward pass makes.

    Args:
        shape: (C, H, W) of an image.
        config: sizes.
        count: images in a batch.
    """
    with torch.device("meta"):
        network = image_generator(shape, config)
    weights = sum(p.numel() for p in network.parameters())
    height, width = made_size(shape)
    wide, narrow = config.generator_width, config.generator_width // 2
    # Linear, BatchNorm and doubled maps; two maps at half size and the doubled one; three of the
    # image's channels.
    pixels = height * width * (wide * (2 / 16 + 1 / 4) + narrow * (3 / 4 + 1) + 3 * shape[0])
    return 4 * (4 * weights + int(count * pixels))
