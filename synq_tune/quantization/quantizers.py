"""The quantizer families: how a weight and an activation get their grid, and what learns.

Every weight quantizer answers `forward(weight)`, `qparams(weight)`, `limits` and
`has_zero_points`; every activation quantizer `forward(x)`, `qparams()`, `observe(x)`,
`end_calibration()`. Adding a family is one entry here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import fx, nn

from synq_tune.quantization.lsq import DeployWeight, LsqActivation, LsqWeight, SymmetricLsqWeight
from synq_tune.quantization.minmax import MinMaxActivation, MinMaxWeight
from synq_tune.quantization.placement import Placement, after_activations, every_tensor
from synq_tune.quantization.placement_vit import (
    multiplied_tensors,
    prepare_branches,
    prepare_transformer,
    psaq_tensors,
)
from synq_tune.quantization.vit_minmax import VitMinMaxActivation, VitMinMaxWeight


@dataclass(frozen=True)
class Quantizer:
    """A family: the class of its weight grids, of its activation grids, and where the latter go."""

    weight: type[nn.Module]
    """Its `has_zero_points` says whether any channel's grid may have one, which integer kernels refuse."""
    activation: type[nn.Module]
    placement: Placement
    prepare: Callable[[fx.GraphModule], None] = lambda graph: None
    """Rewrites a float graph in place into one whose tensors can have the grids; a model file's reader
    does the same again, so that names agree."""


QUANTIZERS: dict[str, Quantizer] = {
    "minmax": Quantizer(MinMaxWeight, MinMaxActivation, after_activations),
    "lsq": Quantizer(LsqWeight, LsqActivation, after_activations),
    "deploy": Quantizer(DeployWeight, LsqActivation, every_tensor),
    "vit_minmax": Quantizer(
        VitMinMaxWeight, VitMinMaxActivation, psaq_tensors, prepare_transformer
    ),
    "vit_lsq": Quantizer(SymmetricLsqWeight, LsqActivation, multiplied_tensors, prepare_branches),
}
