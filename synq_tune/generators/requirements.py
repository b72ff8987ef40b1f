"""What a generator needs, known before it trains: what its teacher must have, and memory."""

from __future__ import annotations

import math
import os

import torch
from torch import Tensor, nn

from synq_tune.config import FineTune
from synq_tune.errors import InputError
from synq_tune.generators.build import build_generator
from synq_tune.generators.classifier import first_vectors, latent_length
from synq_tune.generators.draws import Draw
from synq_tune.generators.losses import weights
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
    return sum(p.numel() for p in _shapes(teacher, config).parameters())


def training_bytes(teacher: LoadedTeacher, config: FineTune) -> int:
    """Weights, gradients, Adam's moments and what autograd keeps of one batch, in bytes."""
    network, size = _shapes(teacher, config), config.batch_size
    latent, classes = latent_length(teacher, config), config.generator_mixing
    with torch.device("meta"):
        draw = Draw(
            torch.empty(size, classes, latent),
            torch.empty(size, classes, dtype=torch.int64),
            torch.empty(size, classes),
        )
    kept = _kept_bytes(network, draw)
    return _FLOAT32 * _COPIES * num_weights(teacher, config) + kept


def _shapes(teacher: LoadedTeacher, config: FineTune) -> nn.Module:
    """The generator without memory for its weights."""
    latent, shape = latent_length(teacher, config), teacher.preprocessing.shape
    with torch.device("meta"):
        return build_generator(config, latent, teacher.num_classes, shape)


def _kept_bytes(network: nn.Module, draw: Draw) -> int:
    """What a forward pass leaves for its backward pass, without the weights."""
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(draw)
    for parameter in network.parameters():
        kept.pop(parameter.untyped_storage()._cdata, None)
    return sum(storage.nbytes() for storage in kept.values())
