"""Statistics of BatchNorm inputs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from synq_tune.graph.batchnorm import batch_statistics


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


@pytest.mark.parametrize("mean", [0.0, 1.0, 10.0, 31.0, 32.0, 100.0, 1e3])
def test_no_mean_costs_digits_of_the_variance(mean: float) -> None:
    """Whichever way it is measured, and beside channels that are measured the other way."""
    layer = nn.BatchNorm2d(3).eval()
    noise = torch.randn(16, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    images = noise + torch.tensor([mean, 0.0, -mean]).view(1, -1, 1, 1)
    images[:, 1] = 0.25  # a dead channel
    with batch_statistics(layer) as statistics:
        layer(images)
    exact = images.double()
    found_mean, variance = statistics[layer]
    torch.testing.assert_close(found_mean, exact.mean([0, 2, 3]).float(), rtol=1e-6, atol=1e-6)
    expected = exact.var([0, 2, 3], correction=0).float()
    torch.testing.assert_close(variance, expected, rtol=2e-4, atol=1e-12)


@pytest.mark.parametrize("affine", [True, False])
def test_a_watched_layer_is_the_layer(affine: bool) -> None:
    """Output, statistics and gradient of 70 images are those of the layer itself."""
    layer = nn.BatchNorm2d(16, affine=affine)
    images = torch.randn(70, 16, 32, 32, generator=torch.Generator().manual_seed(0)) * 3 + 2
    layer(images)  # it remembers something
    layer.eval().requires_grad_(False)
    if affine:
        layer.weight.uniform_(0.5, 2, generator=torch.Generator().manual_seed(1))
        layer.bias.normal_(generator=torch.Generator().manual_seed(2))
    images.requires_grad_()
    with batch_statistics(layer) as statistics:
        observed = layer(images)
    mean, variance = statistics[layer]
    plain, exact = layer(images), images.double()
    torch.testing.assert_close(observed, plain)
    torch.testing.assert_close(mean, exact.mean([0, 2, 3]).float())
    torch.testing.assert_close(variance, exact.var([0, 2, 3], unbiased=False).float())

    def loss(output: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
        return output.square().sum() + 1e3 * variance.square().sum()

    (gradient,) = torch.autograd.grad(loss(observed, variance), images)
    reference = loss(plain, images.var([0, 2, 3], unbiased=False))
    torch.testing.assert_close(gradient, torch.autograd.grad(reference, images)[0])


def test_half_precision_keeps_the_statistics_exact() -> None:
    """Of bfloat16 values: float32 moments of just these values, output and gradient rounded only."""
    layer = nn.BatchNorm2d(4).eval().requires_grad_(False)
    layer.running_mean.fill_(30.0)
    noise = torch.randn(64, 4, 16, 16, generator=torch.Generator().manual_seed(0)) + 30
    halves = noise.bfloat16().requires_grad_()
    exact = halves.detach().double()
    with batch_statistics(layer) as statistics:
        observed = layer(halves)
    mean, variance = statistics[layer]
    assert observed.dtype == torch.bfloat16 and mean.dtype == variance.dtype == torch.float32
    torch.testing.assert_close(mean, exact.mean([0, 2, 3]).float(), rtol=1e-5, atol=0)
    torch.testing.assert_close(variance, exact.var([0, 2, 3], correction=0).float())
    torch.testing.assert_close(observed.float(), layer(exact.float()), rtol=1e-2, atol=1e-2)
    (gradient,) = torch.autograd.grad(mean.sum(), halves)
    expected = torch.full_like(gradient, 1 / (64 * 16 * 16))
    torch.testing.assert_close(gradient, expected)


def test_layers_are_their_own_again_afterwards() -> None:
    """Also after an error: nothing is collected, and training mode works as before."""
    layer = nn.BatchNorm2d(3)
    with pytest.raises(RuntimeError, match="on purpose"), batch_statistics(layer) as statistics:
        raise RuntimeError("on purpose")
    before = layer.running_mean.clone()
    layer(torch.ones(2, 3, 4, 4))
    assert not statistics
    assert "forward" not in vars(layer)
    assert not torch.equal(before, layer.running_mean)
