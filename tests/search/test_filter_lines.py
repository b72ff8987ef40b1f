"""A filter that lets nearly everything through is said to, in a sentence."""

from __future__ import annotations

import torch

from synq_tune.search.filter_lines import filter_lines


def test_each_share_is_told_and_the_wide_ones_in_a_sentence() -> None:
    """White noise at 32 px: D0 = 80 keeps 97 %; no filter at all is nothing to be told."""
    noise = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    shares, sentence = filter_lines(noise, (20, 80, None))
    assert shares.startswith("filter    energy kept at D0=20: 6") and "D0=80: 97" in shares
    assert sentence.strip() == (
        "at D0=80 the filter hardly changes these images: it keeps more than 95 % of their energy"
    )


def test_a_filter_that_filters_needs_no_sentence() -> None:
    """Only the shares."""
    noise = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert len(filter_lines(noise, (8, 20))) == 1
