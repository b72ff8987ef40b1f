"""Every way to spell an activation function: module, function, method, in place, written by
hand."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Function = Callable[[Tensor], Tensor]

MODULES: dict[str, Callable[[], nn.Module]] = {
    "ReLU": nn.ReLU, "ReLU6": nn.ReLU6, "SiLU": nn.SiLU, "Hardswish": nn.Hardswish,
    "GELU": nn.GELU, "GELU(tanh)": lambda: nn.GELU(approximate="tanh"), "LeakyReLU": nn.LeakyReLU,
    "LeakyReLU(0.3)": lambda: nn.LeakyReLU(0.3), "PReLU": nn.PReLU, "RReLU": nn.RReLU,
    "ELU": nn.ELU, "CELU": nn.CELU, "SELU": nn.SELU, "Mish": nn.Mish, "Hardtanh": nn.Hardtanh,
    "Hardtanh(-2, 3)": lambda: nn.Hardtanh(-2.0, 3.0), "Hardsigmoid": nn.Hardsigmoid,
    "Softplus": nn.Softplus, "Softplus(2)": lambda: nn.Softplus(2.0), "Tanh": nn.Tanh,
    "Sigmoid": nn.Sigmoid, "LogSigmoid": nn.LogSigmoid, "Softsign": nn.Softsign,
    "Threshold": lambda: nn.Threshold(0.1, -0.5), "Hardshrink": nn.Hardshrink,
    "Softshrink": nn.Softshrink, "Tanhshrink": nn.Tanhshrink,
}  # fmt: skip
IN_PLACE_MODULES: dict[str, Callable[[], nn.Module]] = {
    "ReLU_": lambda: nn.ReLU(inplace=True), "ReLU6_": lambda: nn.ReLU6(inplace=True),
    "SiLU_": lambda: nn.SiLU(inplace=True), "Hardswish_": lambda: nn.Hardswish(inplace=True),
    "LeakyReLU_": lambda: nn.LeakyReLU(0.1, inplace=True), "ELU_": lambda: nn.ELU(inplace=True),
    "SELU_": lambda: nn.SELU(inplace=True), "Mish_": lambda: nn.Mish(inplace=True),
    "Hardtanh_": lambda: nn.Hardtanh(inplace=True),
    "Threshold_": lambda: nn.Threshold(0.0, -0.1, inplace=True),
}  # fmt: skip
FUNCTIONS: dict[str, Function] = {
    "F.relu": F.relu, "torch.relu": torch.relu, "F.relu6": F.relu6, "F.silu": F.silu,
    "F.hardswish": F.hardswish, "F.gelu": F.gelu, "F.leaky_relu": F.leaky_relu, "F.elu": F.elu,
    "F.leaky_relu(slope)": lambda x: F.leaky_relu(x, negative_slope=0.2),
    "F.celu": F.celu, "torch.celu": torch.celu, "F.selu": F.selu, "torch.selu": torch.selu,
    "F.mish": F.mish, "F.hardtanh": F.hardtanh, "F.hardsigmoid": F.hardsigmoid,
    "F.softplus": F.softplus, "F.tanh": F.tanh, "torch.tanh": torch.tanh, "F.sigmoid": F.sigmoid,
    "torch.sigmoid": torch.sigmoid, "F.logsigmoid": F.logsigmoid, "F.softsign": F.softsign,
    "F.threshold": lambda x: F.threshold(x, 0.0, -0.2), "F.hardshrink": F.hardshrink,
    "F.softshrink": F.softshrink, "F.tanhshrink": F.tanhshrink, "F.rrelu": F.rrelu,
    "F.relu(input=)": lambda x: F.relu(input=x), "torch.relu(input=)": lambda x: torch.relu(input=x),
    "F.gelu(input=)": lambda x: F.gelu(input=x, approximate="tanh"),
}  # fmt: skip
IN_PLACE_FUNCTIONS: dict[str, Function] = {
    "F.relu(inplace)": lambda x: F.relu(x, inplace=True), "torch.relu_": torch.relu_,
    "F.silu(inplace)": lambda x: F.silu(x, inplace=True), "F.elu_": F.elu_,
    "F.leaky_relu_": F.leaky_relu_, "F.hardtanh_": F.hardtanh_, "torch.tanh_": torch.tanh_,
    "F.leaky_relu(inplace)": lambda x: F.leaky_relu(x, 0.1, True), "torch.selu_": torch.selu_,
    "F.celu_": F.celu_, "F.threshold_": lambda x: F.threshold_(x, 0.0, 0.0),
    "F.hardswish(inplace)": lambda x: F.hardswish(x, inplace=True),
}  # fmt: skip
METHODS: dict[str, Function] = {
    ".relu()": lambda x: x.relu(), ".tanh()": lambda x: x.tanh(),
    ".sigmoid()": lambda x: x.sigmoid(), ".hardshrink()": lambda x: x.hardshrink(),
    ".relu_()": lambda x: x.relu_(), ".tanh_()": lambda x: x.tanh_(),
    ".sigmoid_()": lambda x: x.sigmoid_(),
}  # fmt: skip
BY_HAND: dict[str, Function] = {
    "clamp(0, 6)": lambda x: torch.clamp(x, 0, 6), ".clamp(min=0)": lambda x: x.clamp(min=0),
    ".clamp_min(0)": lambda x: x.clamp_min(0.0), ".clamp_(0, 6)": lambda x: x.clamp_(0, 6),
    "maximum(x, 0)": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "clamp(-1, 1)": lambda x: x.clamp(-1.0, 1.0), "x * (x > 0)": lambda x: x * (x > 0),
    "hard-swish, /6 last": lambda x: x * F.relu6(x + 3) / 6,
    "hard-swish, /6 first": lambda x: (F.relu6(x + 3.0) / 6.0) * x,
    "hard-swish by clamp": lambda x: x * torch.clamp(x + 3, 0, 6).div(6),
    "hard-sigmoid": lambda x: F.relu6(x + 3) / 6, "x * sigmoid(x)": lambda x: x * torch.sigmoid(x),
    "sigmoid(x).mul(x)": lambda x: x.sigmoid().mul(x), "x *= sigmoid(x)": lambda x: _multiply(x),
    "x * hardsigmoid(x)": lambda x: x * F.hardsigmoid(x),
    "quick GELU": lambda x: x * torch.sigmoid(1.702 * x),
    "x * tanh(softplus(x))": lambda x: x * torch.tanh(F.softplus(x)),
    "where(x > 0, x, x / 10)": lambda x: torch.where(x > 0, x, 0.1 * x),
    "maximum(x, x / 10)": lambda x: torch.maximum(x, 0.1 * x), "(x + |x|) / 2": lambda x: _half(x),
    "GELU by tanh": lambda x: 0.5 * x * (1 + torch.tanh(0.79788456 * (x + 0.044715 * x**3))),
    "GELU by erf": lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5)),
    "log1p(exp(x))": lambda x: torch.log1p(torch.exp(x)), "sin": torch.sin,
}  # fmt: skip
SPELLINGS: dict[str, dict[str, Callable[..., object]]] = {
    "module": MODULES, "in-place module": IN_PLACE_MODULES, "function": FUNCTIONS,
    "in-place function": IN_PLACE_FUNCTIONS, "method": METHODS, "by hand": BY_HAND,
}  # fmt: skip


def _multiply(x: Tensor) -> Tensor:
    x *= torch.sigmoid(x)
    return x


def _half(x: Tensor) -> Tensor:
    return (x + x.abs()) * 0.5


class Activation(nn.Module):
    """One activation function in one spelling."""

    def __init__(self, kind: str, name: str) -> None:
        """Take a key of `SPELLINGS` and a key of that table."""
        super().__init__()
        self.name, made = name, SPELLINGS[kind][name]
        self.function = made() if kind.endswith("module") else made

    def extra_repr(self) -> str:
        """The spelling."""
        return self.name

    def forward(self, x: Tensor) -> Tensor:
        """Values of the same shape as `x`."""
        return self.function(x)


class ResultUnused(nn.Module):
    """An in-place module whose result nobody takes: the tensor itself is read on."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.function = IN_PLACE_MODULES[kind]()

    def forward(self, x: Tensor) -> Tensor:
        """`x`, changed."""
        self.function(x)
        return x


def draw_activation(rng: random.Random, channels: int) -> nn.Module:
    """Any function in any spelling; plain ReLUs are as frequent as in real networks."""
    if rng.random() < 0.25:
        return nn.ReLU()
    if rng.random() < 0.05:
        return ResultUnused(rng.choice(list(IN_PLACE_MODULES)))
    if rng.random() < 0.05:
        return nn.PReLU(channels)
    kind = rng.choice(list(SPELLINGS))
    return Activation(kind, rng.choice(list(SPELLINGS[kind])))
