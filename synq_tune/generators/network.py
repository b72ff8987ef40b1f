"""One generator for all methods (GDFQ, Qimera, AdaSG, AdaDFQ): their trunk is the same.

Linear → BatchNorm → twice as large → 3×3 convolution → BatchNorm → leaky ReLU → twice as large →
3×3 convolution → BatchNorm → leaky ReLU → 3×3 convolution → tanh → BatchNorm without weights. The
last one gives a batch's channels mean 0 and deviation 1; nothing is clamped.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synq_tune.config.generator_source import GeneratorSourceSettings
from synq_tune.generators.draws import Draw

Shape = tuple[int, int, int]

_GROWTH = 4
"""The first maps are doubled twice."""
_WIDE, _NARROW = 128, 64
_SLOPE = 0.2
_LARGE_EPS = 0.8
"""Under the root of the BatchNorms behind convolutions: all releases have it there, though a
momentum was probably meant. Their generators are trained with it."""


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
        self.conditioning, self.size = config.generator_conditioning, shape[1:]
        self.seed_size = tuple(-(-side // _GROWTH) for side in self.size)
        if self.conditioning != "none":
            self.vectors = nn.Embedding(num_classes, latent)
            if rows is not None:
                self.vectors.weight.data.copy_(rows)
        classes = num_classes if config.generator_conditional_norm else None
        self.linear = nn.Linear(latent, _WIDE * math.prod(self.seed_size))
        self.norms = nn.ModuleList(
            [Norm(_WIDE, 1e-5, classes), Norm(_WIDE, _LARGE_EPS, classes)]
            + [Norm(_NARROW, _LARGE_EPS, classes)]
        )
        channels = [_WIDE, _WIDE, _NARROW, shape[0]]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in zip(channels, channels[1:], strict=False)
        )

    def forward(self, draw: Draw) -> Tensor:
        """Images (N, C, H, W) of a draw."""
        first, second, third = self.convolutions
        x = self.linear(self._latents(draw)).unflatten(1, (_WIDE, *self.seed_size))
        x = first(_doubled(self.norms[0](x, draw)))
        x = second(_doubled(F.leaky_relu(self.norms[1](x, draw), _SLOPE)))
        x = third(F.leaky_relu(self.norms[2](x, draw), _SLOPE)).tanh()
        return _middle(F.batch_norm(x, None, None, training=True), self.size)

    def _latents(self, draw: Draw) -> Tensor:
        """(N, D): the latents of an image's classes by their shares."""
        z = draw.latents
        if self.conditioning == "multiply":
            z = self.vectors(draw.classes) * z
        elif self.conditioning == "add_norm":
            # Each vector by itself. Qimera's code standardises those of mixed images over the whole
            # batch, so that one image depends on the others'.
            z = F.layer_norm(self.vectors(draw.classes) + z, z.shape[-1:])
        return _mixed(z, draw.shares)


class Norm(nn.Module):
    """BatchNorm over the batch at hand, with factors and shifts of each class where asked."""

    def __init__(self, channels: int, eps: float, num_classes: int | None) -> None:
        """Start from factors 1 and shifts 0; `num_classes` None: the same for all classes."""
        super().__init__()
        self.eps, self.is_conditional = eps, num_classes is not None
        rows = num_classes or 1
        self.factors = nn.Embedding.from_pretrained(torch.ones(rows, channels), freeze=False)
        self.shifts = nn.Embedding.from_pretrained(torch.zeros(rows, channels), freeze=False)

    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        """(N, C, H, W) → the same shape."""
        tables = self.factors, self.shifts
        if not self.is_conditional:
            one = (table.weight[0] for table in tables)
            return F.batch_norm(x, None, None, *one, training=True, eps=self.eps)
        # By the classes' shares: Qimera's code divides this sum by their number once more.
        factor, shift = (_mixed(t(draw.classes), draw.shares)[..., None, None] for t in tables)
        return F.batch_norm(x, None, None, training=True, eps=self.eps) * factor + shift


def _mixed(values: Tensor, shares: Tensor) -> Tensor:
    """(N, M, D) → (N, D)."""
    return (values * shares[..., None]).sum(1)


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def _middle(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle (N, C, H, W) of larger images."""
    top, left = ((made - asked) // 2 for made, asked in zip(images.shape[2:], size, strict=True))
    return images[:, :, top : top + size[0], left : left + size[1]]
