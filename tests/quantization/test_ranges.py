"""Ranges of values found in calibration."""

from __future__ import annotations

import pytest
import torch

from synq_tune.quantization import ranges


def test_a_sample_finds_the_range_of_all_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 6 million values with a long tail the same range is chosen, or its neighbour."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 16, 224, 224, generator=generator).abs_().pow_(1.5)
    sampled = ranges.least_squares(x, 4)
    monkeypatch.setattr(ranges, "_MOST_VALUES", x.numel())
    whole = ranges.least_squares(x, 4)
    assert whole[1] < 0.99 * x.max()
    assert abs(sampled[1] - whole[1]) <= 0.041 * x.max()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_symmetric_range_covers_the_longer_side(sign: float) -> None:
    """Whichever side that is: codes of 8 bits reach the largest magnitude."""
    x = sign * torch.cat([torch.linspace(0, 8, 1000), torch.linspace(-1, 0, 100)])
    low, high = ranges.symmetric_least_squares(x, 8)
    assert low == -high
    torch.testing.assert_close(high, torch.tensor(8.0), atol=0.5, rtol=0)
