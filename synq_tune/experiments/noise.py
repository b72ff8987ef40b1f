"""Noise in the synthetic images that trials train on (SynQ, Table 9)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from synq_tune.data.synthetic import SyntheticDataset
from synq_tune.experiments.paper_table import Noise
from synq_tune.models.preprocessing import Preprocessing
from synq_tune.seeds import address_seed
from synq_tune.store import content_address


def add_noise(
    dataset: SyntheticDataset, noise: Noise, preprocessing: Preprocessing
) -> SyntheticDataset:
    """The dataset with noise in its training part; the same noise whenever it is asked for.

    Its address is another one, so that views of it are kept apart. The hold-out stays clean.
    """
    address = content_address([dataset.address, noise.model_dump(mode="json")])
    generator = torch.Generator().manual_seed(address_seed(address))
    pixels = preprocessing.denormalize(dataset.train_images.float())
    noisy = preprocessing.normalize(_KINDS[noise.kind](pixels, noise.strength, generator))
    images = torch.cat((noisy.half(), dataset.holdout_images))
    sha256 = content_address([dataset.sha256, address])
    return replace(dataset, images=images, address=address, sha256=sha256)


def gaussian(pixels: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """x + σ n."""
    return pixels + strength * torch.randn(pixels.shape, generator=generator)


def speckle(pixels: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """x + σ n x."""
    return pixels + strength * pixels * torch.randn(pixels.shape, generator=generator)


def salt_pepper(pixels: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """A share of the pixels is black or white, in all channels at once."""
    drawn = torch.rand(pixels[:, :1].shape, generator=generator)
    with_pepper = torch.where(drawn < strength / 2, 0.0, pixels)
    return torch.where(drawn > 1 - strength / 2, 1.0, with_pepper)


def uniform(pixels: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """x + u, u in [-strength, strength]."""
    return pixels + strength * (2 * torch.rand(pixels.shape, generator=generator) - 1)


_KINDS = {
    "gaussian": gaussian,
    "speckle": speckle,
    "salt_pepper": salt_pepper,
    "uniform": uniform,
}
