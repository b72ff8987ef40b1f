"""Statistics of BatchNorm inputs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from synq_tune.models.batchnorm import batch_statistics


@pytest.mark.parametrize("shape", [(4, 3, 5, 6), (8, 3)])
def test_statistics_are_exact_and_so_are_their_gradients(shape: tuple[int, ...]) -> None:
    """Against the definition in float64, and against finite differences."""
    layer = nn.BatchNorm2d(3) if len(shape) == 4 else nn.BatchNorm1d(3)
    layer = layer.double().eval()
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3 + 2
    dims = [0, 2, 3][: len(shape) - 1]

    def moments(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with batch_statistics(layer) as statistics:
            layer(images)
        return statistics[layer]

    mean, variance = moments(x)
    torch.testing.assert_close(mean, x.mean(dims))
    torch.testing.assert_close(variance, x.var(dims, unbiased=False))
    assert torch.autograd.gradcheck(moments, x.requires_grad_())


def test_a_large_mean_costs_no_precision() -> None:
    """The variance of 1e3 + noise is the noise's, in float32."""
    layer = nn.BatchNorm2d(2).eval()
    noise = torch.randn(16, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    with batch_statistics(layer) as statistics:
        layer(noise + 1e3)
    expected = noise.var([0, 2, 3], unbiased=False)
    torch.testing.assert_close(statistics[layer][1], expected, rtol=1e-3, atol=0)
