"""No operation in place is left, and the graph computes what the network computes with them."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synq_tune.errors import InputError
from synq_tune.graph.nodes import operation
from synq_tune.graph.trace import trace

Forward = Callable[[nn.Module, Tensor], Tensor]


class _Net(nn.Module):
    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True)
        self.silu, self.fixed = nn.SiLU(inplace=True), nn.Parameter(torch.ones(4, 1, 1))
        self.rest = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self, self.conv(x))


def _module(net: nn.Module, x: Tensor) -> Tensor:
    net.relu(x)
    return x * 2


def _function(net: nn.Module, x: Tensor) -> Tensor:
    F.relu(x, inplace=True)
    F.hardtanh(x, -1.0, 1.0, True)
    torch.relu_(x)
    F.elu_(x)
    return x


def _method(net: nn.Module, x: Tensor) -> Tensor:
    x.clamp_(0, 1).add_(2).mul_(x)
    x.sub_(1).pow_(2).masked_fill_(x > 3, 0.5)
    return x


def _operators(net: nn.Module, x: Tensor) -> Tensor:
    y = x
    x += 1
    x *= y
    x -= 0.5
    x /= 3
    return x + y


def _other_name(net: nn.Module, x: Tensor) -> Tensor:
    same, copy = x.detach(), x.clone()
    x.relu_()
    return x + same + copy


def _view_of_changed(net: nn.Module, x: Tensor) -> Tensor:
    view = x.view(x.shape[0], -1)
    part = x.permute(0, 2, 3, 1)[..., 1]
    x.relu_()
    return view.sum(1) + part.sum((1, 2))


def _changed_view(net: nn.Module, x: Tensor) -> Tensor:
    x.view(x.shape[0], -1).relu_()
    x.permute(0, 2, 3, 1).mul_(2)
    return x


def _chunk(net: nn.Module, x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    a.relu_()
    b += a
    return x


def _slices(net: nn.Module, x: Tensor) -> Tensor:
    x[:, 1:3].relu_()
    x[:, 0].mul_(3)
    x[:, :, 1:, :-1].sub_(1)
    return x.flatten(1)


def _overlapping(net: nn.Module, x: Tensor) -> Tensor:
    a, b = x[:, :3], x[:, 1:]
    a.relu_()
    b.mul_(2)
    return torch.cat([a, b], 1)


def _filled(net: nn.Module, x: Tensor) -> Tensor:
    x[:, 0] = x[:, 1].relu()
    x[:, 2:, 0] = 1.0
    x[x < -1] = 0
    y = torch.empty_like(x)
    y.copy_(x)
    y[:, 1].zero_()
    y[:, 3].fill_(2)
    return y


def _new_shape(net: nn.Module, x: Tensor) -> Tensor:
    y = x[:, 0]
    y.unsqueeze_(1)
    return (x + y).transpose_(2, 3)


def _loses_input(net: nn.Module, x: Tensor) -> Tensor:
    shortcut = x
    x = net.silu(x)
    x += shortcut
    return x


FORWARDS = (
    _module, _function, _method, _operators, _other_name, _view_of_changed, _changed_view, _chunk,
    _slices, _overlapping, _filled, _new_shape, _loses_input,
)  # fmt: skip


def _check(forward: Forward) -> torch.fx.GraphModule:
    torch.manual_seed(0)
    net = _Net(forward).eval()
    graph = trace(net, (3, 4, 6))
    for count in (2, 5):  # of one image, contiguous() gives other views
        images = 2 * torch.randn(count, 3, 4, 6)
        with torch.no_grad():
            expected = net(images.clone())
            torch.testing.assert_close(graph(images.clone()), expected)
    return graph


@pytest.mark.parametrize("forward", FORWARDS, ids=lambda f: f.__name__)
def test_a_graph_computes_the_same_without_operations_in_place(forward: Forward) -> None:
    """Whatever is changed in place, and under whichever name it is read later, for any batch size."""
    graph = _check(forward)
    for node in graph.graph.nodes:
        name = operation(node)
        assert not (isinstance(name, str) and name.endswith("_") and not name.endswith("__"))
        assert name not in (operator.iadd, operator.imul, operator.setitem, torch.relu_)
        assert not node.kwargs.get("inplace", False)
    assert not any(getattr(m, "inplace", False) for m in graph.modules())


def test_the_network_itself_stays_as_it_is() -> None:
    """Its modules keep their flags: there an operation in place may be the one that matters."""
    net = _Net(_module).eval()
    trace(net, (3, 4, 4))
    assert net.relu.inplace


_STEPS: tuple[Callable[[Tensor], object], ...] = (
    lambda x: x.relu_(), lambda x: x.mul_(-1), lambda x: x.add_(0.5), lambda x: operator.iadd(x, 1),
    lambda x: x.clamp_(-1, 2), lambda x: F.leaky_relu(x, 0.1, inplace=True), torch.neg_,
)  # fmt: skip
_VIEWS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda x: x[:, :2], lambda x: x[:, 1:], lambda x: x.chunk(2, 1)[1], lambda x: x.detach(),
    lambda x: x[:, :, 1:3], lambda x: x.narrow(3, 0, 2), lambda x: x.contiguous(),
    lambda x: x.split(2, 1)[0], lambda x: x.transpose(2, 3), lambda x: x + 1, lambda x: x * x,
)  # fmt: skip


@pytest.mark.parametrize("seed", range(30))
def test_random_changes_of_random_views(seed: int) -> None:
    """Views of views, changed in any order and all read at the end; or refused by name."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        draw, alive = random.Random(seed), [x]
        for _ in range(6):
            source = draw.choice(alive)
            if draw.random() < 0.5 or min(source.shape[1:]) < 3:
                draw.choice(_STEPS)(source)
            else:
                alive.append(draw.choice(_VIEWS)(source))
        return torch.stack([a.flatten(1).sum(1) for a in alive], 1)

    try:
        _check(forward)
    except InputError as error:
        assert "leave their inputs as they are" in str(error)


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: (torch.add(x, 1, out=x), x)[1],
        lambda net, x: (x[:, ::2].relu_(), x)[1],
        lambda net, x: (x.normal_(), x)[1],
        lambda net, x: (x[torch.tensor([0])].relu_(), net.fixed.mul_(2), x * net.fixed)[2],
    ],
    ids=["out", "steps", "random", "parameter"],
)
def test_what_cannot_be_written_anew_is_refused_by_name(forward: Forward) -> None:
    """One line names the operation and its place."""
    with pytest.raises(InputError, match=r"leave their inputs as they are.* at \w+"):
        trace(_Net(forward).eval(), (3, 4, 4))


class _Unread(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.aux = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor, mask: Tensor | None = None, *more: Tensor) -> Tensor:
        torch._assert(x.shape[0] > 0, "images")
        x = self.conv(x)
        F.relu(self.aux(x))
        return F.relu(input=x).mean((2, 3))


def test_what_nobody_reads_is_dropped() -> None:
    """Results, arguments and checks go; the unread layer's parameters stay, so that checkpoints fit."""
    net = _Unread().eval()
    graph = trace(net, (3, 4, 4))
    assert [n.name for n in graph.graph.nodes] == ["x", "conv", "relu_1", "mean", "output"]
    assert graph.state_dict().keys() == net.state_dict().keys()
    assert graph.graph.find_nodes(op="call_function", target=F.relu)[0].args


class _ByName(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(input=x)
        x = torch.add(input=F.relu(input=x, inplace=True), other=x)
        x = torch.cat(tensors=[x, torch.sub(x, other=1)], dim=1)
        return torch.flatten(input=torch.where(condition=x > 0, input=x, other=x * 2), start_dim=1)


def test_tensors_come_in_the_place_their_operation_has_for_them() -> None:
    """Whether they are passed by name or not: what reads a graph looks at the first arguments."""
    net = _ByName().eval()
    graph = trace(net, (3, 2, 2))
    images = torch.randn(3, 3, 2, 2)
    torch.testing.assert_close(graph(images), net(images))
    kwargs = [a for n in graph.graph.nodes for a in n.kwargs.values()]
    assert not any(isinstance(a, torch.fx.Node) for a in kwargs)
