"""Strangers' networks: opened layers become plain ones, sizes are known, any batch size works."""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synq_tune.errors import InputError
from synq_tune.graph.batchnorm import batchnorm_layers
from synq_tune.graph.nodes import module_of
from synq_tune.graph.trace import trace


def _functions(graph: torch.fx.GraphModule) -> set[object]:
    return {node.target for node in graph.graph.nodes if node.op == "call_function"}


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "tf_mobilenetv3_small_075"])
def test_a_library_network_computes_the_same(name: str) -> None:
    """Also for another batch size than it was traced with."""
    model = timm.create_model(name, num_classes=10).eval()
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        expected = model(images)
        graph = trace(model, (3, 64, 64))
        assert torch.equal(graph(images), expected)


def test_batchnorms_with_an_activation_inside_are_opened() -> None:
    """timm's BatchNormAct2d becomes a BatchNorm2d, whose statistics can be read, and a ReLU."""
    graph = trace(timm.create_model("test_efficientnet", num_classes=10), (3, 64, 64))
    called = {type(module_of(graph, node)) for node in graph.graph.nodes}
    assert F.batch_norm not in _functions(graph)
    assert nn.BatchNorm2d in called
    assert all(type(layer) is nn.BatchNorm2d for layer in batchnorm_layers(graph))


def test_padding_as_in_tensorflow_is_a_plain_convolution_behind_a_pad() -> None:
    """timm's Conv2dSame asks for the input's size; here that is a number."""
    graph = trace(timm.create_model("tf_mobilenetv3_small_075", num_classes=10), (3, 64, 64))
    assert F.conv2d not in _functions(graph)
    stem = next(n for n in graph.graph.nodes if isinstance(module_of(graph, n), nn.Conv2d))
    assert type(graph.get_submodule(stem.target)) is nn.Conv2d
    assert stem.args[0].target is F.pad


class _AsksForSizes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        batch, _, height, width = x.shape
        if height % 2 == 0:
            x = F.pad(x, (1, 1, 1, 1))
        for _ in range(x.shape[2] // 34):
            x = self.conv(x)
        if mask is not None:
            x = x * mask
        return self.fc(x.reshape(batch, x.size(1), -1).mean(-1))


def test_height_and_width_are_numbers_and_the_batch_is_not() -> None:
    """Python may decide and loop on sizes; a reshape by the batch fits every batch."""
    model = _AsksForSizes().eval()
    graph = trace(model, (3, 32, 32))
    for count in (1, 5):
        images = torch.randn(count, 3, 32, 32)
        torch.testing.assert_close(graph(images), model(images))


class _DecidesOnValues(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if x.max() > 0 else x.sum((2, 3))


def test_decisions_on_values_are_refused() -> None:
    """One line names the network; nothing is traced by accident."""
    with pytest.raises(InputError, match=r"can be traced.*_DecidesOnValues"):
        trace(_DecidesOnValues(), (3, 8, 8))


def test_an_input_too_small_is_refused() -> None:
    """The network's own error becomes one line with the input's shape."""
    model = nn.Sequential(nn.Conv2d(3, 4, 7), nn.Conv2d(4, 4, 7))
    with pytest.raises(InputError, match=r"inputs \[3, 8, 8\]"):
        trace(model, (3, 8, 8))


def test_what_does_nothing_in_evaluation_is_dropped() -> None:
    """A functional dropout leaves no trace, unless it drops in evaluation too."""

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x, 0.5, self.training).mean((2, 3))

    class AlwaysDrops(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x).mean((2, 3))

    assert _functions(trace(Net(), (3, 8, 8))) == set()
    assert _functions(trace(AlwaysDrops(), (3, 8, 8))) == {F.dropout}
