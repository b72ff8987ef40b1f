"""What a quantizer is: a grid of weights, a grid of values, and a family that says where they
go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, fx, nn

from synq_tune.errors import InputError
from synq_tune.names import known, resolve
from synq_tune.quantization.affine import affine_parameters, code_limits, per_channel, quantize
from synq_tune.quantization.placement import Placement
from synq_tune.quantization.ranges import MovingAverageMinMaxObserver, min_max


class WeightQuantizer(nn.Module, ABC):
    """The grid of one layer's weight (O, …), a scale and a zero point per output channel.

    A subclass is made with `(weight, bits)`. Real values are `(code + zero_point) · scale`.
    """

    has_zero_points: ClassVar[bool]
    """Whether a channel's zero point can differ from 0, which integer kernels refuse."""
    learns_rounding: ClassVar[bool] = False
    """Whether a reconstruction can choose the codes; see `learned_rounding`."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.limits = code_limits(bits)
        """Smallest and largest code."""

    @abstractmethod
    def forward(self, weight: Tensor) -> Tensor:
        """The weight on its grid, same shape; differentiable."""

    @abstractmethod
    def qparams(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point, each (O,)."""

    def codes(self, weight: Tensor) -> Tensor:
        """Integer codes as floats, shape of the weight: by default those of rounding to nearest."""
        scale, zero_point = (per_channel(v, weight) for v in self.qparams(weight))
        return quantize(weight, scale, zero_point, self.bits).clamp_(*self.limits)

    def clip(self, weight: Tensor) -> Tensor:
        """The weight that training starts from where `finetune.clip_weights` asks for finer steps.

        By default the weight itself: a grid that starts from the least error has no use for it.
        """
        return weight


class ActivationQuantizer(nn.Module, ABC):
    """The grid of one tensor of values (N, …), one scale and zero point; made with `(bits)`."""

    observes_float: ClassVar[bool] = False
    """Whether ranges are those of the full-precision network: weights are not rounded meanwhile."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.limits = code_limits(bits)

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Values on their grid, same shape; differentiable."""

    @abstractmethod
    def observe(self, x: Tensor) -> None:
        """Take one calibration batch (N, …) into account."""

    @abstractmethod
    def end_calibration(self) -> None:
        """Fix the grid to what was observed."""

    @abstractmethod
    def qparams(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point, scalars."""

    def clip(self, share: float) -> None:
        """Cover only a share in (0, 1] of the calibrated range; by default nothing changes.

        A grid that learns its steps starts from the least error and finds its own range.
        """

    def mask_gradient(self) -> None:
        """Let values beyond the grid pass no gradient; by default nothing changes."""

    def drop(self, keeps: Callable[[Tensor], Tensor] | None) -> None:
        """Keep values that `keeps(x)` (bool, shape of x) is true for; by default nothing changes.

        None ends it.
        """

    def forget(self) -> None:
        """Forget what was observed, so that calibration can begin anew; by default nothing."""


class CalibratedActivation(ActivationQuantizer):
    """Asymmetric, per tensor, on the range observed in calibration."""

    batch_range = staticmethod(min_max)

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.observer = MovingAverageMinMaxObserver()
        self.register_buffer("zero_point", torch.zeros(()))

    def observe(self, x: Tensor) -> None:
        self.observer.update(*self.batch_range(x, self.bits))

    def forget(self) -> None:
        self.observer.forget()

    def end_calibration(self) -> None:
        scale, zero_point = affine_parameters(*self.observer.range(), self.bits)
        self.restart_scale(scale)
        self.zero_point.copy_(zero_point)

    def qparams(self) -> tuple[Tensor, Tensor]:
        return self.scale, self.zero_point

    @abstractmethod
    def restart_scale(self, scale: Tensor) -> None:
        """Take a scale, a scalar."""


def prepared_as(name: str) -> str | None:
    """The built-in family that rewrites graphs as this one does, for readers without the user's
    code."""
    prepare = quantizer_family(name).prepare
    same = (n for n in known("quantizer") if quantizer_family(n).prepare is prepare)
    return next(same, None)


def no_preparation(graph: fx.GraphModule) -> None:
    """The graph can have its grids as it is."""


@dataclass(frozen=True)
class Quantizer:
    """A family: its two kinds of grid, and which tensors get one."""

    weight: type[WeightQuantizer]
    activation: type[ActivationQuantizer]
    placement: Placement
    """Graph → the nodes behind which an activation quantizer goes."""
    prepare: Callable[[fx.GraphModule], None] = no_preparation
    """Rewrites a float graph in place into one whose tensors can have the grids; a model file's
    reader does the same again, so that names agree."""


def quantizer_family(name: str) -> Quantizer:
    """The family of that name, ours or the user's own.

    Raises:
        InputError: there is none, or the user's object is no `Quantizer`.
    """
    family = resolve("quantizer", name)
    if not isinstance(family, Quantizer):
        raise InputError(
            f"quantizer {name}: `it is a synq_tune.quantization.base.Quantizer` must hold, but got "
            f"{type(family).__name__}."
        )
    return family
