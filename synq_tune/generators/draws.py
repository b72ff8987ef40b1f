"""What a batch of images is asked to be: latents, classes and their shares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from synq_tune.config.generator_source import GeneratorSourceSettings


@dataclass(frozen=True)
class Draw:
    """N images of M classes each."""

    latents: Tensor
    """(N, M, D), N(0, 1)."""
    classes: Tensor
    """(N, M) int64; a class may come twice."""
    shares: Tensor
    """(N, M), positive; each image's add up to 1."""

    def to(self, device: torch.device | str) -> Draw:
        """The same draw on another device."""
        return Draw(*(tensor.to(device) for tensor in vars(self).values()))

    @property
    def labels(self) -> Tensor:
        """(N,) int64, the class with the largest share."""
        return self.classes.gather(1, self.shares.argmax(1, keepdim=True))[:, 0]

    def target(self, num_classes: int) -> Tensor:
        """What cross-entropy asks for: labels (N,), or the shares (N, K) of several classes."""
        shares = self.mixture(num_classes)
        return self.labels if shares is None else shares

    def mixture(self, num_classes: int) -> Tensor | None:
        """(N, K), each class's share of an image; None where an image is of one class."""
        if self.classes.shape[1] == 1:
            return None
        empty = self.shares.new_zeros(len(self.shares), num_classes)
        return empty.scatter_add_(1, self.classes, self.shares)


def draws(
    config: GeneratorSourceSettings,
    size: int,
    latent: int,
    num_classes: int,
    generator: torch.Generator,
) -> Iterator[Draw]:
    """Batches without end, the same for the same generator; classes are uniform.

    A batch is mixed as a whole. Shares are the softmax of N(0, 1) (Qimera's code).

    Args:
        config: how many classes are mixed, and how often.
        size: images N of a batch.
        latent: length D of a latent.
        num_classes: K.
        generator: on the CPU.
    """
    while True:
        is_mixed = torch.rand((), generator=generator) < config.generator_mixing_probability
        count = config.generator_mixing if is_mixed else 1
        latents = torch.randn(size, count, latent, generator=generator)
        classes = torch.randint(num_classes, (size, count), generator=generator)
        shares = torch.randn(size, count, generator=generator).softmax(1)
        yield Draw(latents, classes, shares)
