"""What a generator needs, known before it trains: what its teacher must have, and memory."""

from __future__ import annotations

import math
import os

import torch

from synq_tune.config import FineTune
from synq_tune.errors import InputError
from synq_tune.generators.classifier import first_vectors, latent_length
from synq_tune.generators.losses import weights
from synq_tune.generators.network import Generator
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.notes import say
from synq_tune.synthesis.statistics import remembered

_FLOAT32 = 4
_COPIES = 4
"""Weights, gradients and Adam's two moments."""
_WORTH_SAYING = 2**30


def check(teacher: LoadedTeacher, config: FineTune) -> None:
    """Look whether teacher and machine have what the settings need; say what a large one takes.

    Raises:
        InputError: no BatchNorm, no rows of a classifier, too small a batch, or too little memory.
    """
    if "bns" in weights(config):
        remembered(teacher.graph)
    first_vectors(teacher, config)
    _check_batch(teacher, config)
    check_memory(teacher, config, _device_bytes(teacher))


def _check_batch(teacher: LoadedTeacher, config: FineTune) -> None:
    _, height, width = teacher.preprocessing.shape
    if config.batch_size * math.ceil(height / 4) * math.ceil(width / 4) < 2:
        raise InputError(
            "`finetune.batch_size >= 2` must hold for a generator of images of at most 4×4 pixels, "
            f"but got {config.batch_size}."
        )


def check_memory(teacher: LoadedTeacher, config: FineTune, available: int) -> None:
    """Compare what training the generator takes with the memory of the device, in bytes.

    Raises:
        InputError: it is more than there is.
    """
    taken, count = training_bytes(teacher, config), num_weights(teacher, config) / 1e6
    line = f"{count:,.0f} million weights take {taken / 2**30:.1f} GiB with Adam's moments"
    if taken > available:
        raise InputError(
            "finetune.source: `the generator fits into memory` must hold, but its "
            f"{line}, and there are {available / 2**30:.1f} GiB. Set finetune.generator_latent to "
            "less, such as 100, with finetune.generator_embedding=random."
        )
    if taken > _WORTH_SAYING:
        say(f"each trial trains a generator of its own: {line}.")


def _device_bytes(teacher: LoadedTeacher) -> int:
    """All memory of the device that the teacher is on."""
    device = next(teacher.graph.parameters()).device
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def num_weights(teacher: LoadedTeacher, config: FineTune) -> int:
    """Weights of the generator, none of which is made."""
    latent = latent_length(teacher, config)
    with torch.device("meta"):
        network = Generator(config, latent, teacher.num_classes, teacher.preprocessing.shape)
    return sum(p.numel() for p in network.parameters())


def training_bytes(teacher: LoadedTeacher, config: FineTune) -> int:
    """Weights, gradients, Adam's moments and the maps of one batch, in float32."""
    channels, height, width = teacher.preprocessing.shape
    # Per pixel: Linear and BatchNorm at a sixteenth, the doubled map, convolution, BatchNorm and
    # ReLU at a quarter, the doubled map and two behind it, four of the image's channels.
    maps = 128 * (2 / 16 + 4 / 4 + 1) + 64 * 3 + 4 * channels
    cells = 16 * math.ceil(height / 4) * math.ceil(width / 4)
    batch = int(config.batch_size * cells * maps)
    return _FLOAT32 * (_COPIES * num_weights(teacher, config) + batch)
