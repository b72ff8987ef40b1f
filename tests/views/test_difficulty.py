"""How hard an image is (Eq. 3), and how unsure the teacher is of it."""

from __future__ import annotations

import math

import pytest
import torch

from synq_tune.views.difficulty import difficulty, entropy_share

LOGITS = torch.tensor([[math.log(6.0), math.log(3.0), 0.0], [0.0, 0.0, 0.0]])
"""The teacher sees the classes with 0.6, 0.3, 0.1, and all alike."""


@pytest.mark.parametrize("label, expected", [(0, 0.4), (1, 0.7), (2, 0.9)])
def test_an_image_is_hard_where_its_own_class_is_not_seen(label: int, expected: float) -> None:
    """Whatever class the teacher sees instead."""
    found = difficulty(LOGITS, torch.tensor([label, 1]))
    torch.testing.assert_close(found, torch.tensor([expected, 2 / 3]))


def test_shares_of_one_class_are_that_class() -> None:
    """An image of several is as hard as what was asked for and what is seen differ."""
    one = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    torch.testing.assert_close(difficulty(LOGITS, one), difficulty(LOGITS, one.argmax(1)))
    half = torch.tensor([[0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    torch.testing.assert_close(difficulty(LOGITS, half), torch.tensor([0.2, 0.0]))


def test_a_teacher_that_sees_all_classes_alike_is_as_unsure_as_can_be() -> None:
    """1 there, near 0 where one class is sure."""
    sure = torch.tensor([[30.0, 0.0, 0.0]])
    found = entropy_share(torch.cat([LOGITS[1:], sure]))
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0]), atol=1e-4, rtol=0)
