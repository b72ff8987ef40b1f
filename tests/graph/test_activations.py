"""Every pointwise activation of torch.nn has a grid, however it is spelled; a gate has none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synq_tune.config import Bits
from synq_tune.errors import InputError
from synq_tune.inspection.student import inspect_student
from synq_tune.quantization.student import activation_quantizers, calibrate, quantize_student
from synq_tune.testing.random_activations import SPELLINGS, Activation
from tests.helpers import teacher_of

BITS = Bits(weights=4, activations=4)
SHAPE = (3, 6, 6)
REFUSED = {"RReLU", "F.rrelu"}
TORCH_SPELLINGS = [
    (kind, name) for kind in SPELLINGS if kind != "by hand" for name in SPELLINGS[kind]
    if name not in REFUSED
]  # fmt: skip


class _Net(nn.Module):
    def __init__(self, act: nn.Module, function: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.conv1, self.act = nn.Conv2d(3, 4, 3, padding=1), act
        self.conv2, self.fc = nn.Conv2d(4, 4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv2(self.act(self.conv1(x))).mean((2, 3)))


def _grids(net: nn.Module, quantizer: str = "minmax") -> dict[str, nn.Module]:
    return activation_quantizers(quantize_student(teacher_of(net, SHAPE), BITS, quantizer))


@pytest.mark.parametrize(("kind", "name"), TORCH_SPELLINGS, ids=lambda v: str(v))
def test_an_activation_has_a_grid_that_a_layer_reads(kind: str, name: str) -> None:
    """Module, function and method, in place or not: one grid, and the second layer reads it."""
    student = quantize_student(teacher_of(_Net(Activation(kind, name)), SHAPE), BITS, "minmax")
    assert len(activation_quantizers(student)) == 1
    reads = {row.name: row.reads for row in inspect_student(student).layers}
    assert (reads["conv1"], reads["conv2"]) == (None, 4)


@pytest.mark.parametrize("quantizer", ["minmax", "lsq", "deploy", "vit_minmax", "vit_lsq"])
@pytest.mark.parametrize(
    "act",
    [nn.LeakyReLU(0.3), nn.PReLU(4), nn.ELU(), nn.Mish(), nn.Hardtanh(), nn.Softplus(), nn.Tanh(),
     nn.LogSigmoid(), nn.Threshold(-0.2, -1.0)],
    ids=lambda a: type(a).__name__,
)  # fmt: skip
def test_ranges_of_any_sign_are_covered(act: nn.Module, quantizer: str) -> None:
    """With 8 bits a grid covers all values, below zero, above it or on both sides, to within two steps."""
    bits = Bits(weights=8, activations=8)
    torch.manual_seed(0)
    net, images = _Net(act).eval(), torch.randn(8, *SHAPE)
    student = quantize_student(teacher_of(net, SHAPE), bits, quantizer)
    calibrate(student, [images])
    with torch.no_grad():
        values = act(net.conv1(images))
        grid = activation_quantizers(student)["quantize_act"]
        error = (grid(values) - values).abs().max()
    assert error <= 2 * grid.qparams()[0]


@pytest.mark.parametrize("spelling", ["module", "function", "torch", "method"])
def test_slopes_of_prelu_train(spelling: str) -> None:
    """They are float parameters with a gradient, and no layer of the inspection."""

    class _Slopes(nn.PReLU):  # a library's own class is opened by tracing
        def forward(self, x: Tensor) -> Tensor:
            calls = {"function": F.prelu, "torch": torch.prelu, "method": Tensor.prelu}
            return calls[spelling](x, self.weight) if spelling != "method" else x.prelu(self.weight)

    act = nn.PReLU(4) if spelling == "module" else _Slopes(4)
    student = quantize_student(teacher_of(_Net(act), SHAPE), BITS, "lsq")
    calibrate(student, [torch.randn(4, *SHAPE)])
    student(torch.randn(4, *SHAPE)).square().sum().backward()
    slopes = dict(student.named_parameters())["act.weight"]
    assert slopes.requires_grad and slopes.grad.abs().sum() > 0
    assert [row.name for row in inspect_student(student).layers] == ["conv1", "conv2", "fc"]


class _Gated(nn.Module):
    """y · gate(squeeze(y)), the gate reshaped or turned round on its way."""

    def __init__(self, gate: Callable[[Tensor], Tensor], way: Callable[[Tensor, Tensor], Tensor]):
        super().__init__()
        self.conv, self.squeeze = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)
        self.gate, self.way, self.fc = gate, way, nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv(x))
        s = self.gate(self.squeeze(y.mean((2, 3), keepdim=True)))
        return self.fc(self.way(y, s).mean((2, 3)))


GATES = [nn.Sigmoid(), nn.Hardsigmoid(), nn.Tanh(), torch.sigmoid, F.hardsigmoid, Tensor.tanh,
         nn.Softplus(), nn.Hardtanh(0, 1)]  # fmt: skip
WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "y * s": lambda y, s: y * s,
    "s.mul(y)": lambda y, s: s.mul(y),
    "y *= s": lambda y, s: y.mul_(s),
    "expand_as": lambda y, s: y * s.expand_as(y),
    "reshaped": lambda y, s: y * s.view(s.size(0), -1).unsqueeze(-1).unsqueeze(-1),
    "1 - s": lambda y, s: y * (1 - s),
    "2 * s": lambda y, s: torch.mul(y, 2 * s),
    "both": lambda y, s: s * y + (1 - s) * y,
    "chunks": lambda y, s: torch.cat([y[:, :2] * s.chunk(2, 1)[0], y[:, 2:] * s.chunk(2, 1)[1]], 1),
    "lerp": lambda y, s: torch.lerp(y, y.flip(1), s),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_gate_stays_float(way: str) -> None:
    """What only multiplies has no grid, on whichever way it reaches the product."""
    for gate in (nn.Sigmoid(), nn.Hardsigmoid()):
        assert list(_grids(_Gated(gate, WAYS[way]))) == ["quantize_relu"]


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: getattr(gate, "__name__", str(gate)))
def test_any_gate_function_stays_float_where_it_multiplies(gate: object) -> None:
    """The same functions that are activations in front of a layer."""
    function = gate if isinstance(gate, nn.Module) else lambda s: gate(s)
    if gate is Tensor.tanh:
        function = lambda s: s.tanh()  # noqa: E731
    assert list(_grids(_Gated(function, WAYS["y * s"]))) == ["quantize_relu"]


def test_a_sigmoid_that_a_layer_reads_too_is_an_activation() -> None:
    """Then it is a map like others."""

    class _Both(_Gated):
        def forward(self, x: Tensor) -> Tensor:
            s = torch.sigmoid(self.conv(x))
            return self.fc((s * self.squeeze(s)).mean((2, 3)))

    assert list(_grids(_Both(nn.Sigmoid(), WAYS["y * s"]))) == ["quantize_sigmoid"]


def test_a_sigmoid_of_parameters_alone_has_no_grid() -> None:
    """A table of positions is a constant, not an activation."""

    class _Table(_Net):
        def __init__(self) -> None:
            super().__init__(nn.ReLU())
            self.table = nn.Parameter(torch.randn(1, 4, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            y = self.act(self.conv1(x)) + torch.sigmoid(self.table)
            return self.fc(self.conv2(y).mean((2, 3)))

    assert list(_grids(_Table())) == ["quantize_act"]


@pytest.mark.parametrize(
    "function",
    [lambda x: x * torch.sigmoid(x), lambda x: torch.sigmoid(x) * x,
     lambda x: x * torch.tanh(F.softplus(x)), lambda x: x.mul(torch.sigmoid(1.702 * x)),
     lambda x: x * F.hardsigmoid(x)],
)  # fmt: skip
def test_a_function_times_its_input_has_one_grid(function: Callable[[Tensor], Tensor]) -> None:
    """SiLU, Mish and their like written out: the grid is behind the product alone."""

    class _ByHand(_Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.conv2(function(self.conv1(x))).mean((2, 3)))

    student = quantize_student(teacher_of(_ByHand(nn.ReLU()), SHAPE), BITS, "minmax")
    assert len(activation_quantizers(student)) == 1
    reads = {row.name: row.reads for row in inspect_student(student).layers}
    assert reads["conv2"] == 4


@pytest.mark.parametrize("function", [torch.sin, torch.exp, torch.sign, torch.erf, F.rrelu])
def test_what_nobody_knows_is_named(function: Callable[[Tensor], Tensor]) -> None:
    """One line with the function and its place."""

    class _ByHand(_Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.conv2(function(self.conv1(x))).mean((2, 3)))

    with pytest.raises(InputError, match=f"{function.__name__} at"):
        quantize_student(teacher_of(_ByHand(nn.ReLU()), SHAPE), BITS, "minmax")


def test_hardware_clips_with_the_layer_in_front() -> None:
    """deploy: hardtanh is fused like ReLU6; a LeakyReLU reads a grid and gives one."""
    assert "quantize_conv1" not in _grids(_Net(nn.Hardtanh()), "deploy")
    assert {"quantize_conv1", "quantize_act"} <= set(_grids(_Net(nn.LeakyReLU()), "deploy"))
