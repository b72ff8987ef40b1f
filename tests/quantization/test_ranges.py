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
