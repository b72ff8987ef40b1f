"""Swing convolution: what strided convolutions read moves, and nothing else does."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, nn

from synq_tune.models.teacher import LoadedTeacher
from synq_tune.synthesis.swing import shifted, strided_convolutions, swinging
from tests.helpers import teacher_of

OFFSETS = list(itertools.product((-1, 0, 1), (-1, 0, 1)))
UNEVEN = (0, 1, 0, 1)


class Net(nn.Module):
    """A stem padded as TensorFlow does, a pool, a depthwise layer and a shortcut with strides."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv2dSame(3, 8, 3, stride=2, bias=False)
        self.pool = nn.MaxPool2d(2, stride=2)
        self.still = nn.Conv2d(8, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8)
        self.shortcut = nn.Conv2d(8, 8, 1, stride=(2, 1))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 5)."""
        x = self.still(self.pool(self.stem(x)))
        y = self.depthwise(x).mean((2, 3)) + self.shortcut(x).mean((2, 3))
        return self.head(y)


@pytest.fixture(scope="module")
def net() -> LoadedTeacher:
    """The network, traced for images whose sides are even, so that one side of the stem is padded."""
    torch.manual_seed(0)
    return teacher_of(Net(), (3, 16, 20))


def _window(x: Tensor, down: int, right: int) -> Tensor:
    """A cut-out of the reflected surroundings, as the released code makes it."""
    height, width = x.shape[2:]
    wide = F.pad(x, (1, 1, 1, 1), mode="reflect")
    return wide[:, :, 1 + down : 1 + down + height, 1 + right : 1 + right + width]


@pytest.mark.parametrize(("down", "right"), OFFSETS)
@pytest.mark.parametrize("size", [(2, 2), (5, 8)], ids=str)
def test_a_shift_is_a_window_of_the_reflected_maps(
    size: tuple[int, int], down: int, right: int
) -> None:
    """Rows and columns, both ways, of even and odd sizes."""
    x = torch.randn(2, 3, *size)
    assert torch.equal(shifted(x, down, right), _window(x, down, right))


@pytest.mark.parametrize(("down", "right"), OFFSETS)
def test_zeros_around_maps_stay_where_they_are(down: int, right: int) -> None:
    """What a network pads by itself is no pixel of a map."""
    x = torch.randn(2, 3, 4, 6)
    found = shifted(F.pad(x, UNEVEN), down, right, UNEVEN)
    assert torch.equal(found, F.pad(_window(x, down, right), UNEVEN))


def test_a_single_row_cannot_move() -> None:
    """There is nothing to reflect; the other axis moves."""
    x = torch.randn(1, 1, 1, 4)
    assert torch.equal(shifted(x, 1, 0), x)
    assert torch.equal(shifted(x, -1, 1)[..., :-1], x[..., 1:])


def test_strided_convolutions_are_found_with_their_padding(net: LoadedTeacher) -> None:
    """Neither the pool nor a layer that reads every pixel alike; the pad in front of the stem counts."""
    graph = net.graph
    found = strided_convolutions(graph)
    assert list(found) == [graph.stem, graph.depthwise, graph.shortcut]
    assert list(found.values()) == [UNEVEN, (0, 0, 0, 0), (0, 0, 0, 0)]


def test_each_layer_draws_its_own_offsets_in_each_forward(net: LoadedTeacher) -> None:
    """Logits are those of the network with its maps shifted by what the generator gave, in order."""
    images, plain = torch.randn(3, 3, 16, 20), Net().eval()
    plain.load_state_dict({k: v for k, v in net.graph.state_dict().items()}, strict=False)
    draws, seen = torch.Generator().manual_seed(5), set()
    with swinging(net.graph, torch.Generator().manual_seed(5)), torch.no_grad():
        for _ in range(4):
            offsets = [torch.randint(-1, 2, (2,), generator=draws).tolist() for _ in range(3)]
            seen.update(map(tuple, offsets))
            x = plain.still(plain.pool(plain.stem(_window(images, *offsets[0]))))
            y = plain.depthwise(_window(x, *offsets[1])).mean((2, 3))
            y = y + plain.shortcut(_window(x, *offsets[2])).mean((2, 3))
            torch.testing.assert_close(net(images), plain.head(y))
    assert len(seen) > 3


def test_behind_the_block_the_network_stands_still(net: LoadedTeacher) -> None:
    """The same numbers as before, and the layers' own forward."""
    images = torch.randn(2, 3, 16, 20)
    before = net(images)
    with swinging(net.graph, torch.Generator().manual_seed(0)):
        moved = [net(images) for _ in range(6)]
    assert not all(torch.equal(before, logits) for logits in moved)
    assert torch.equal(net(images), before)
    assert not any("forward" in vars(module) for module in net.graph.modules())


def test_gradients_reach_every_pixel(net: LoadedTeacher) -> None:
    """A shift copies values; none of the image is cut from the graph for good."""
    images = torch.randn(1, 3, 16, 20, requires_grad=True)
    with swinging(net.graph, torch.Generator().manual_seed(0)):
        total = sum(net(images).square().sum() for _ in range(12))
    (gradient,) = torch.autograd.grad(total, images)
    assert (gradient != 0).float().mean() > 0.9


@pytest.mark.parametrize(("down", "right"), OFFSETS)
@pytest.mark.parametrize("padding", [(0, 0, 0, 0), UNEVEN], ids=["bare", "padded"])
@pytest.mark.parametrize("size", [(2, 2), (4, 5)], ids=str)
def test_gradients_are_those_of_the_window(
    size: tuple[int, int], padding: tuple[int, int, int, int], down: int, right: int
) -> None:
    """A pixel that is seen twice has both gradients; zeros around the maps have none of a pixel's."""
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 3, size[0] + padding[3], size[1] + padding[1], dtype=torch.float64)
    found = shifted(F.pad(x, padding), down, right, padding)
    expected = F.pad(_window(x, down, right), padding)
    gradients = [torch.autograd.grad((y * weight).sum(), x)[0] for y in (found, expected)]
    torch.testing.assert_close(*gradients)
