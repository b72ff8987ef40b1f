"""One generator for all methods (GDFQ, Qimera, AdaSG, AdaDFQ): their trunk is the same.

Linear → BatchNorm → twice as large → 3×3 convolution → BatchNorm → leaky ReLU → twice as large →
3×3 convolution → BatchNorm → leaky ReLU → 3×3 convolution → tanh → BatchNorm without weights. The
last one gives a batch's channels mean 0 and deviation 1; nothing is clamped.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from synq_tune.config.generator_source import GeneratorSourceSettings
from synq_tune.generators.draws import Draw
from synq_tune.generators.latents import Latents, Norm

Shape = tuple[int, int, int]

SLOPE = 0.2
"""Of every leaky ReLU."""
LARGE_EPS = 0.8
"""Under the root of the BatchNorms behind convolutions: all releases have it there, though a
momentum was probably meant. Their generators are trained with it."""
_GROWTH = 4
"""The first maps are doubled twice."""
_WIDE, _NARROW = 128, 64


class Generator(nn.Module):
    """Latents and classes → images, normalised."""

    def __init__(
        self,
        config: GeneratorSourceSettings,
        latent: int,
        num_classes: int,
        shape: Shape,
        rows: Tensor | None = None,
    ) -> None:
        """Draw the weights as torch does.

        Args:
            config: how classes enter.
            latent: length D of a latent.
            num_classes: K.
            shape: (C, H, W) of an image; sides that four does not divide are made larger and
                cropped.
            rows: (K, D) that the classes' vectors start from; None: N(0, 1).
        """
        super().__init__()
        self.size, self.seed_size = shape[1:], seed_size(shape, _GROWTH)
        self.latents = Latents(config.generator_conditioning, num_classes, latent, rows)
        classes = num_classes if config.generator_conditional_norm else None
        self.linear = nn.Linear(latent, _WIDE * math.prod(self.seed_size))
        of_norms = ((_WIDE, 1e-5), (_WIDE, LARGE_EPS), (_NARROW, LARGE_EPS))
        self.norms = nn.ModuleList(Norm(width, eps, classes) for width, eps in of_norms)
        channels = [_WIDE, _WIDE, _NARROW, shape[0]]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in zip(channels, channels[1:], strict=False)
        )

    def forward(self, draw: Draw) -> Tensor:
        """Images (N, C, H, W) of a draw."""
        first, second, third = self.convolutions
        x = self.linear(self.latents(draw)).unflatten(1, (_WIDE, *self.seed_size))
        x = first(doubled(self.norms[0](x, draw)))
        x = second(doubled(F.leaky_relu(self.norms[1](x, draw), SLOPE)))
        return finished(third(F.leaky_relu(self.norms[2](x, draw), SLOPE)), self.size)


def seed_size(shape: Shape, growth: int) -> tuple[int, int]:
    """Height and width of the first maps, which grow `growth` times to an image or more."""
    return -(-shape[1] // growth), -(-shape[2] // growth)


def doubled(x: Tensor, mode: str = "nearest") -> Tensor:
    """(N, C, H, W) → (N, C, 2 H, 2 W)."""
    return F.interpolate(x, scale_factor=2.0, mode=mode)


def finished(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle (N, C, H, W) of images that are squashed and normalised over the batch."""
    images = F.batch_norm(x.tanh(), None, None, training=True)
    top, left = ((made - asked) // 2 for made, asked in zip(images.shape[2:], size, strict=True))
    return images[:, :, top : top + size[0], left : left + size[1]]
