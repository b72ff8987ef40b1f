"""Losses on statistics against values computed by hand."""

from __future__ import annotations

import pytest
import torch

from synq_tune.graph.batchnorm import batch_statistics
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.synthesis.statistics import (
    in_order,
    layer_gaps,
    layered_loss,
    pool_moments,
    remembered,
    split_index,
    with_deviations,
)


def _moments(mean: list[float], variance: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(mean), torch.tensor(variance)


def test_gap_is_mean_squared_difference() -> None:
    """Two channels: ((1-0)² + (2-0)²)/2 + ((3-1)² + (1-1)²)/2 = 2.5 + 2; equal ones give 0."""
    batch = [_moments([1.0, 2.0], [3.0, 1.0]), _moments([5.0], [7.0])]
    target = [_moments([0.0, 0.0], [1.0, 1.0]), _moments([5.0], [7.0])]
    assert layer_gaps(batch, target).tolist() == [4.5, 0.0]


@pytest.mark.parametrize(
    ("layers", "index"), [(1, 0), (2, 0), (20, 9), (21, 9), (52, 25), (53, 25)]
)
def test_split_index(layers: int, index: int) -> None:
    """⌊(L + 2) / 2⌋ - 2, never negative."""
    assert split_index(layers) == index


def test_layered_loss_counts_deep_layers_over_all() -> None:
    """Of four layers those from the second on count; their sum is divided by four."""
    batch = [_moments([float(i)], [1.0]) for i in (100, 1, 2, 3)]
    centers = [_moments([0.0], [1.0])] * 3
    assert layered_loss(batch, centers).item() == pytest.approx((1 + 4 + 9) / 4)


def test_pooling_equals_statistics_of_the_whole() -> None:
    """Batches of unequal size and unequal means pool to what one large batch would have."""
    x = torch.randn(10, 3, dtype=torch.float64) * torch.tensor([1.0, 5.0, 0.1])
    parts = [(len(p), [(p.mean(0), p.var(0, correction=0))]) for p in (x[:1], x[1:4] + 3, x[4:])]
    whole = torch.cat((x[:1], x[1:4] + 3, x[4:]))
    ((mean, variance),) = pool_moments(parts)
    torch.testing.assert_close(mean, whole.mean(0))
    torch.testing.assert_close(variance, whole.var(0, correction=0))


def test_deviation_of_a_constant_channel_has_a_gradient() -> None:
    """A channel without variance would have an infinite slope under the bare root."""
    variance = torch.zeros(1, requires_grad=True)
    ((_, deviation),) = with_deviations([(torch.zeros(1), variance)])
    deviation.sum().backward()
    assert variance.grad.isfinite().all()


def test_gap_is_zero_for_the_layers_own_statistics(teacher: LoadedTeacher) -> None:
    """Statistics come in the order of the remembered ones, layer by layer."""
    with batch_statistics(teacher.graph) as statistics, torch.no_grad():
        teacher(torch.randn(4, 1, 8, 8))
    moments = in_order(teacher.graph, statistics)
    shapes = [m.shape for m, _ in moments]
    assert shapes == [m.shape for m, _ in remembered(teacher.graph)]
    assert layer_gaps(moments, moments).sum() == 0
