"""The generator that the settings ask for."""

from __future__ import annotations

from torch import Tensor, nn

from synq_tune.config.generator_source import GeneratorSourceSettings
from synq_tune.generators.found import FoundGenerator
from synq_tune.generators.network import Generator, Shape


def build_generator(
    config: GeneratorSourceSettings,
    latent: int,
    num_classes: int,
    shape: Shape,
    rows: Tensor | None = None,
) -> nn.Module:
    """A draw → images (N, C, H, W): the common trunk, or the one whose code is given.

    Arguments as of `Generator`.
    """
    kind = Generator if config.generator_code is None else FoundGenerator
    return kind(config, latent, num_classes, shape, rows)
