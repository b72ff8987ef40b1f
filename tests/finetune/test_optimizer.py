"""How a recipe's rate rises and falls."""

from __future__ import annotations

import pytest

from synq_tune.config import FineTune
from synq_tune.finetune.optimizer import lr_factor, warmup_factor


def test_a_cosine_falls_to_its_final_share() -> None:
    """1 at first, halfway between the ends in the middle, the final share at last."""
    config = FineTune(schedule="cosine", final_lr_factor=0.2)
    found = [lr_factor(config, 0, progress) for progress in (0.0, 0.5, 1.0)]
    assert found == pytest.approx([1.0, 0.6, 0.2])


def test_an_exponential_falls_by_equal_factors() -> None:
    """To the final share, too."""
    config = FineTune(schedule="exponential", final_lr_factor=0.01)
    found = [lr_factor(config, 0, progress) for progress in (0.0, 0.5, 1.0)]
    assert found == pytest.approx([1.0, 0.1, 0.01])


def test_milestones_take_a_tenth_each() -> None:
    """From their own epoch on."""
    config = FineTune(schedule="multistep", milestones=(2, 4), epochs=5)
    found = [lr_factor(config, epoch, 0.0) for epoch in range(5)]
    assert found == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.01])


def test_the_warm_up_rises_to_the_whole_rate() -> None:
    """And never beyond; without one the rate is whole at once."""
    config = FineTune(warmup=0.2)
    found = [warmup_factor(config, progress) for progress in (0.05, 0.1, 0.2, 0.9)]
    assert found == pytest.approx([0.25, 0.5, 1.0, 1.0])
    assert warmup_factor(FineTune(warmup=0.0), 0.01) == 1.0
