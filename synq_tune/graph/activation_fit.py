"""Which activation function a function of single values is, judged by its values."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

_STEPS = torch.arange(-800, 801, dtype=torch.float64) / 40
_FINE = torch.linspace(-0.02, 0.02, 81, dtype=torch.float64)
_FAR = torch.tensor([30, 50, 100, 300, 1e3, 1e4, 1e5, 1e6], dtype=torch.float64)
PROBE = torch.cat((_STEPS + 1e-3, _STEPS, -_STEPS - 1e-3, _FINE, -_FINE, _FAR, -_FAR)).unique()
"""Values at which functions are compared: dense where activations bend, few where they run
straight; for each value its negative."""
_NEAR = PROBE.abs() <= 20

_RELATIVE = 1e-6
"""Constants written with seven digits, such as 0.7978846, are the constants they mean."""
_KINKED = 1e-13
"""Of functions made of straight pieces. max(x, 1e-12), which guards a division, is no ReLU."""
_SMOOTH = 1e-6


def is_affine(values: Tensor) -> bool:
    """Whether values at `PROBE` lie on one line in -20 … 20; a clamp far outside guards
    overflows."""
    x, y = PROBE[_NEAR], values.expand_as(PROBE)[_NEAR]
    if not y.isfinite().all():
        return False
    slope = (y[-1] - y[0]) / (x[-1] - x[0])
    line = y[0] + slope * (x - x[0])
    return bool(((y - line).abs() <= 1e-9 * (1 + y.abs().amax())).all())


def fit(values: Tensor) -> nn.Module | None:
    """The activation that has these values at `PROBE`, or None.

    Args:
        values: float64, of the shape of `PROBE`; NaN and infinite far out where float64 overflows.
    """
    values = values.expand_as(PROBE)
    if is_affine(values):
        return None
    for module, tolerance in _candidates(values):
        if _agrees(values, module(PROBE), tolerance):
            return module
    return None


def _agrees(values: Tensor, expected: Tensor, absolute: float) -> bool:
    compared = values.isfinite()
    if not compared[_NEAR].all():
        return False
    difference = (values - expected).abs()[compared]
    return bool((difference <= absolute + _RELATIVE * expected.abs()[compared]).all())


def _candidates(values: Tensor) -> Iterator[tuple[nn.Module, float]]:
    """Modules, those with parameters as the values ask for, and how near they must come."""
    at = dict(zip(PROBE.tolist(), values.tolist(), strict=True))
    yield from ((module, _KINKED) for module in (nn.ReLU(), nn.ReLU6(), nn.Hardswish()))
    yield from ((module, _SMOOTH) for module in (nn.SiLU(), nn.GELU(), nn.GELU("tanh"), nn.Mish()))
    yield from ((module, _SMOOTH) for module in (nn.Sigmoid(), nn.Tanh(), nn.SELU()))
    yield nn.Hardsigmoid(), _KINKED
    if at[-1.0] < 0 < at[1.0]:
        yield nn.LeakyReLU(_short(-at[-1.0])), _KINKED
    low, high = min(values.tolist()), max(values.tolist())
    if -1e6 < low < high < 1e6:
        yield nn.Hardtanh(_short(low), _short(high)), _KINKED
    if at[-1000.0] < -1e-3:
        yield nn.ELU(_short(-at[-1000.0])), _SMOOTH
        yield nn.CELU(_short(-at[-1000.0])), _SMOOTH
    if at[0.0] > 0.03:  # a steeper one is a ReLU within the tolerance
        yield nn.Softplus(_short(math.log(2) / at[0.0])), _SMOOTH
    yield nn.Softsign(), _SMOOTH
    yield nn.LogSigmoid(), _SMOOTH


def _short(value: float) -> float:
    """A number as it was written: 0.1 for what float32 or a few operations made of it."""
    return float(f"{value:.7g}")


FUNCTIONS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.ReLU: ("relu",), nn.ReLU6: ("relu6",), nn.SiLU: ("silu",), nn.Hardswish: ("hardswish",),
    nn.GELU: ("gelu",), nn.Mish: ("mish",), nn.Sigmoid: ("sigmoid", "expit"), nn.Tanh: ("tanh",),
    nn.SELU: ("selu",), nn.Hardsigmoid: ("hardsigmoid",), nn.LeakyReLU: ("leaky_relu",),
    nn.Hardtanh: ("hardtanh",), nn.ELU: ("elu",), nn.CELU: ("celu",), nn.Softplus: ("softplus",),
    nn.Softsign: ("softsign",), nn.LogSigmoid: ("logsigmoid",),
}  # fmt: skip
"""What torch calls each of them as a function or a method."""


def has_a_name(name: str) -> bool:
    """Whether an operation of this name is an activation of torch.nn as it stands."""
    return any(name in (*names, kind.__name__) for kind, names in FUNCTIONS.items())


def is_called(module: nn.Module, name: str) -> bool:
    """Whether an operation is this activation under its own name."""
    return name in (*FUNCTIONS[type(module)], type(module).__name__)
