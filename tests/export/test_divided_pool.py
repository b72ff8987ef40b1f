"""Average pooling with a divisor of its own: torch's exporter drops it, the file must not."""

from __future__ import annotations

import itertools
from pathlib import Path

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from synq_tune.export.divided_pool import DividedPool, spell_out_divisors
from synq_tune.export.onnx_translate import to_onnx

FLAGS = (False, True)
OPTIONS = list(itertools.product((1, 2, 3, (3, 2)), (None, 1, 3, (1, 3)), (0, 1), FLAGS, FLAGS))
"""Kernel, stride, padding, ceil_mode, count_include_pad."""


@pytest.mark.parametrize("size", [(4, 5), (6, 8), (9, 7)])
def test_equals_torch_for_all_arguments(size: tuple[int, int]) -> None:
    """Same shape and values, where the last row fits no window and where a window overhangs."""
    x = torch.randn(2, 3, *size)
    for kernel, stride, padding, ceil, counts in OPTIONS:
        if padding and kernel == 1:
            continue
        pool = nn.AvgPool2d(kernel, stride, padding, ceil, counts, divisor_override=3)
        torch.testing.assert_close(DividedPool(pool, 3)(x), pool(x), msg=str(pool))


class Pools(nn.Module):
    """The three ways to write such a pooling, behind each other."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2, 1, divisor_override=3)
        self.plain = nn.AvgPool2d(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(self.plain(self.pool(x)), 2, 1, 0, False, True, 5)
        return F.avg_pool2d(x, kernel_size=2, stride=1, divisor_override=7).flatten(1)


def test_the_file_divides_as_the_network_does(tmp_path: Path) -> None:
    """Module, positions and keywords; a pooling without a divisor stays as it is."""
    network, x = Pools().eval(), torch.randn(3, 2, 7, 6)
    expected = network(x)
    graph = fx.symbolic_trace(network)
    spell_out_divisors(graph)
    assert sum(isinstance(m, DividedPool) for m in graph.modules()) == 3
    torch.testing.assert_close(graph(x), expected)
    found = run_onnx(graph, x, tmp_path / "pools.onnx")
    torch.testing.assert_close(found, expected)


def run_onnx(network: nn.Module, x: Tensor, path: Path) -> Tensor:
    """What ONNX Runtime gives for the file that torch's exporter writes."""
    path.write_bytes(to_onnx(network, tuple(x.shape[1:])).SerializeToString())
    session = onnxruntime.InferenceSession(path)
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
