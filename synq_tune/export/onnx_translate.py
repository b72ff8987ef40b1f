"""Let torch's exporter translate a frozen network, with placeholders for weights and grids.

It translates whatever operations the network uses; `onnx_model.py` puts the nodes that ONNX has for
integers where the placeholders stand.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from onnx import ModelProto, NodeProto
from torch import Tensor, nn

from synq_tune.export.divided_pool import spell_out_divisors
from synq_tune.export.options import OnnxOptions
from synq_tune.export.pooling import GlobalAveragePool
from synq_tune.quantization.frozen import (
    FrozenWeight,
    StandaloneModel,
    frozen_activations,
    frozen_layers,
    replace_module,
)

OPSET = 21
"""The first with INT4; every runtime that can load it is recent enough for the rest."""
INPUT, OUTPUT = "images", "logits"
DOMAIN = "synq_tune"
"""Of the placeholders, whose operators are `Weight` and `Activation`."""


def layer_of(placeholder: NodeProto) -> str:
    """Name of the layer or grid that a placeholder stands for."""
    return next(a.s.decode() for a in placeholder.attribute if a.name == "layer")


class _WeightPlaceholder(nn.Module):
    """Stands for a FrozenWeight while torch's exporter runs."""

    def __init__(self, name: str, weight: FrozenWeight) -> None:
        super().__init__()
        self.name, self.shape = name, tuple(weight.codes.shape)

    def forward(self) -> Tensor:
        return _placeholder("Weight", (), self.name, self.shape)


class _ActivationPlaceholder(nn.Module):
    """Stands for a FrozenActivation while torch's exporter runs."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return _placeholder("Activation", (x,), self.name, x.shape)


class _PoolPlaceholder(nn.Module):
    """Becomes ONNX's own operator at once."""

    def forward(self, x: Tensor) -> Tensor:
        shape = (x.shape[0], x.shape[1], 1, 1)
        return torch.onnx.ops.symbolic("GlobalAveragePool", (x,), dtype=x.dtype, shape=shape)


def _placeholder(kind: str, inputs: tuple[Tensor, ...], name: str, shape: Any) -> Tensor:
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{kind}", inputs, {"layer": name}, dtype=torch.float32, shape=shape, version=1
    )


class _NormalizedInput(nn.Module):
    """A model that leaves the normalisation to its user."""

    def __init__(self, frozen: nn.Module) -> None:
        super().__init__()
        self.frozen = frozen

    def forward(self, images: Tensor) -> Tensor:
        return self.frozen(images)


def _with_placeholders(model: StandaloneModel, normalize: bool) -> nn.Module:
    new = copy.deepcopy(model).cpu()
    spell_out_divisors(new.frozen)
    for name, weight in frozen_layers(new.frozen).items():
        placeholder = _WeightPlaceholder(name, weight)
        replace_module(new.frozen, f"{name}.frozen_weight", placeholder)
    for name in frozen_activations(new.frozen):
        replace_module(new.frozen, name, _ActivationPlaceholder(name))
    for name, module in list(new.frozen.named_modules()):
        if isinstance(module, GlobalAveragePool):
            replace_module(new.frozen, name, _PoolPlaceholder())
    return (new if normalize else _NormalizedInput(new.frozen)).eval()


@torch.no_grad()
def translate(model: StandaloneModel, options: OnnxOptions) -> ModelProto:
    """The network in ONNX with a placeholder for every frozen weight and grid."""
    network = _with_placeholders(model, options.normalize)
    return to_onnx(network, model.preprocessing.shape, options.batch_size)


def to_onnx(
    network: nn.Module, shape: tuple[int, ...], batch_size: int | None = None
) -> ModelProto:
    """A network in ONNX as torch's exporter writes it.

    Args:
        shape: (C, H, W) of an image.
        batch_size: None leaves it free.
    """
    with quiet():
        program = torch.onnx.export(
            network,
            (torch.zeros(batch_size or 2, *shape),),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=None if batch_size else ({0: "batch"},),
            verbose=False,
        )
    return program.model_proto


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Torch's exporter warns about itself; errors still pass."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
