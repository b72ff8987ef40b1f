"""Activation functions are found by what they compute, however a network writes them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synq_tune.graph.nodes import module_of
from synq_tune.graph.trace import trace

ZERO = torch.tensor(0.0)


class _Net(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.register_buffer("six", torch.tensor(6.0))
        self.register_buffer("zero", torch.zeros(1))
        self.learned = nn.Parameter(torch.tensor(0.25))
        self.per_channel = nn.Parameter(torch.full((3, 1, 1), 0.25))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        takes_net = len(inspect.signature(self.function).parameters) == 2
        return self.last(self.function(self, x) if takes_net else self.function(x))


def _fill_negative(x: Tensor) -> Tensor:
    x[x < 0] = 0
    return x


def _hard_swish_of_timm(x: Tensor) -> Tensor:
    return x.mul_(x.add(3.0).clamp_(0.0, 6.0).div_(6.0))


SPELLINGS: dict[str, list[Callable[..., Tensor]]] = {
    "ReLU()": [
        lambda x: torch.clamp(x, min=0), lambda x: x.clamp_min(0), lambda x: x.clamp_min_(0),
        lambda x: torch.clip(x, 0), lambda x: torch.maximum(x, torch.zeros_like(x)),
        lambda x: torch.max(x, 0 * x), lambda x: torch.max(x, ZERO), lambda n, x: x.maximum(n.zero),
        lambda x: torch.maximum(x, x.new_zeros(1)), lambda x: torch.max(x, torch.zeros(x.shape)),
        lambda x: -torch.minimum(-x, torch.zeros_like(x)), lambda x: F.threshold(x, 0, 0),
        lambda x: x * (x > 0), lambda x: x * (x > 0).float(), lambda x: (x >= 0).to(x.dtype) * x,
        lambda x: (x > 0).type_as(x).mul(x), lambda x: torch.where(x > 0, x, 0.0),
        lambda x: torch.where(x <= 0, torch.zeros_like(x), x), lambda x: (x + x.abs()) / 2,
        lambda x: x.masked_fill(x < 0, 0), lambda x: x * torch.heaviside(x, ZERO), _fill_negative,
    ],
    "ReLU6()": [
        lambda x: torch.clamp(x, 0, 6), lambda x: F.relu(x).clamp(max=6),
        lambda x: F.hardtanh(x, 0, 6), lambda n, x: torch.minimum(F.relu(x), n.six),
    ],
    "Hardswish()": [
        lambda x: x * F.relu6(x + 3) / 6, lambda x: x * (F.relu6(x + 3) / 6),
        lambda x: x * F.hardsigmoid(x), lambda x: x * F.hardtanh(x + 3, 0, 6) / 6,
        lambda x: x * torch.clamp(x / 6 + 0.5, 0, 1), lambda x: F.relu6(x + 3) * x * 0.16666667,
        lambda n, x: x * F.relu6(x + 3) / n.six, _hard_swish_of_timm,
    ],
    "SiLU()": [
        lambda x: x / (1 + torch.exp(-x)), lambda x: x * (1 / (1 + (-x).exp())),
        lambda x: x * 0.5 * (1 + torch.tanh(x / 2)),
    ],
    "Mish()": [
        lambda x: x * torch.tanh(F.softplus(x)), lambda x: x.mul(torch.log1p(x.exp()).tanh()),
        lambda x: x * torch.tanh(torch.log(1 + torch.exp(x))),
    ],
    "GELU(approximate='none')": [
        lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))),
        lambda x: x * (torch.erf(x * 0.70710678) + 1) / 2,
    ],
    "GELU(approximate='tanh')": [
        lambda x: 0.5 * x * (1 + torch.tanh(0.7978845608 * (x + 0.044715 * x**3))),
        lambda x: 0.5 * x * (1 + torch.tanh(0.79788456 * x * (1 + 0.044715 * x * x))),
    ],
    "LeakyReLU(negative_slope=0.01)": [lambda x: torch.max(x, 0.01 * x)],
    "LeakyReLU(negative_slope=0.2)": [
        lambda x: torch.where(x > 0, x, 0.2 * x), lambda x: F.relu(x) - 0.2 * F.relu(-x),
        lambda x: 0.6 * x + 0.4 * x.abs(),
    ],
    "ELU(alpha=1.0)": [lambda x: torch.where(x > 0, x, torch.exp(x) - 1)],
    "ELU(alpha=0.5)": [lambda x: F.relu(x) + 0.5 * torch.clamp(torch.expm1(x), max=0)],
    "CELU(alpha=2.0)": [lambda x: F.relu(x) + torch.clamp(2 * torch.expm1(x / 2), max=0)],
    "SELU()": [
        lambda x: 1.0507009873554805 * torch.where(x > 0, x, 1.6732632423543772 * (x.exp() - 1))
    ],
    "Hardtanh(min_val=-1.0, max_val=1.0)": [
        lambda x: x.clamp(-1, 1), lambda x: torch.max(-x.new_ones(1), x.minimum(x.new_ones(1))),
    ],
    "Hardsigmoid()": [lambda x: F.relu6(x + 3) / 6, lambda x: (x / 6 + 0.5).clamp(0, 1)],
    "Softplus(beta=1.0, threshold=20.0)": [lambda x: torch.log(1 + x.exp())],
    "Softplus(beta=2.0, threshold=20.0)": [lambda x: torch.log1p(torch.exp(2 * x)) / 2],
    "Sigmoid()": [lambda x: 1 / (1 + torch.exp(-x)), lambda x: x.exp() / (1 + x.exp())],
    "Tanh()": [lambda x: 2 * torch.sigmoid(2 * x) - 1],
    "Softsign()": [lambda x: x / (1 + x.abs())],
}  # fmt: skip
TABLE = [
    pytest.param(function, name, id=f"{name}-{number}")
    for name, functions in SPELLINGS.items()
    for number, function in enumerate(functions)
]


def _called(function: Callable[..., Tensor]) -> list[str]:
    """What stands between two convolutions, where it is modules; the graph must compute the same."""
    torch.manual_seed(0)
    net = _Net(function).eval()
    images = 4 * torch.randn(3, 3, 4, 4)
    with torch.no_grad():
        expected = net(images.clone())
        graph = trace(net, (3, 4, 4))
        torch.testing.assert_close(graph(images), expected, atol=1e-5, rtol=1e-5)
    modules = [module_of(graph, n) for n in graph.graph.nodes]
    return [repr(m) for m in modules if m is not None and not isinstance(m, nn.Conv2d)]


@pytest.mark.parametrize(("function", "name"), TABLE)
def test_a_spelling_is_one_call_of_its_module(function: Callable[..., Tensor], name: str) -> None:
    """And the graph computes what the network computes."""
    assert _called(function) == [name]


def test_the_table_is_large() -> None:
    """Forty spellings and more."""
    assert len(TABLE) >= 40


DECOYS: dict[str, Callable[..., Tensor]] = {
    "affine": lambda x: 2 * x / 6 + 1,
    "layer scale": lambda n, x: n.per_channel * x + n.learned,
    "guard of half precision": lambda x: x.clamp(-65504, 65504),
    "guard of a division": lambda x: x / x.norm(dim=1, keepdim=True).clamp_min(1e-12),
    "guard of a root": lambda x: x * (x.var(1, keepdim=True).clamp(min=0) + 1e-5).rsqrt(),
    "learned slope": lambda n, x: torch.where(x > 0, x, n.learned * x),
    "slope by channel": lambda n, x: torch.max(x, n.per_channel * x),
    "learned swish": lambda n, x: x * torch.sigmoid(n.learned * x),
    "shifted": lambda x: x.clamp_min(0.1),
    "hard threshold": lambda x: torch.where(x > 0.1, x, 0.0),
    "six hard swishes": lambda x: x * F.relu6(x + 3),
    "QuickGELU": lambda x: x * torch.sigmoid(1.702 * x),
    "squared": lambda x: F.relu(x) ** 2,
    "residual": lambda x: x + F.relu(x),
    "gate": lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
    "clamped gate": lambda x: x * (x.mean((2, 3), keepdim=True) + 1).clamp(0, 1),
    "softmax": lambda x: x.exp() / x.exp().sum(1, keepdim=True),
    "two tensors": lambda x: torch.maximum(x, x.roll(1, 1)),
    "dropout": lambda x: F.dropout(F.relu(x), 0.5, False).clone(),
    "SiLU in two operations": lambda x: x * torch.sigmoid(x),
}


@pytest.mark.parametrize("function", DECOYS.values(), ids=DECOYS)
def test_what_is_no_equivalent_stays_as_it_is(function: Callable[..., Tensor]) -> None:
    """Affine maps, gates, statistics, and functions with a parameter that training may move."""
    assert _called(function) == []


@pytest.mark.parametrize("seed", range(20))
def test_random_affine_maps_and_near_misses_stay(seed: int) -> None:
    """A function that is off by more than rounding is another function."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (0.2 + torch.rand(2, generator=generator)).tolist()
    assert _called(lambda x: a * x + b - x / (b + 1)) == []
    assert _called(lambda x: x * F.relu6(x + 3 + a) / 6) == []
    assert _called(lambda x: x.clamp_min(a / 100)) == []


def test_names_stay_and_so_does_what_others_read() -> None:
    """The call has the name of the last operation; an inner value with another reader is kept."""

    def function(x: Tensor) -> Tensor:
        inner = F.relu6(x + 3)
        return torch.cat([x * inner / 6, inner], 1)[:, :3]

    graph = trace(_Net(function).eval(), (3, 4, 4))
    nodes = {n.name: n for n in graph.graph.nodes}
    assert isinstance(module_of(graph, nodes["truediv"]), nn.Hardswish)
    assert nodes["relu6"] in nodes["cat"].all_input_nodes
    assert "mul" not in nodes


class _Wrapped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.clamp(x, 0, 6)


def test_the_users_own_module_is_seen_through() -> None:
    """An activation class of one's own is what it computes."""
    net = nn.Sequential(nn.Conv2d(3, 4, 1), _Wrapped(), nn.Dropout(), nn.Conv2d(4, 4, 1)).eval()
    graph = trace(net, (3, 4, 4))
    assert [type(module_of(graph, n)) for n in graph.graph.nodes if n.op == "call_module"] == [
        nn.Conv2d, nn.ReLU6, nn.Dropout, nn.Conv2d,
    ]  # fmt: skip
