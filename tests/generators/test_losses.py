"""A generator's terms against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from synq_tune.config import FineTune
from synq_tune.generators.losses import OF_STUDENT, TERMS, Answers, weighted, weights

TEACHER = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 9.0]])
STUDENT = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
LABELS = torch.tensor([0, 1, 2])


def _answers(student: torch.Tensor | None = STUDENT, target: torch.Tensor = LABELS) -> Answers:
    return Answers(TEACHER, student, target, torch.tensor([1.0, 3.0]), (0.1, 0.8))


def test_cross_entropies_are_of_what_is_asked_for() -> None:
    """Of the teacher, of the difference and of the sum; labels and shares of one class agree."""
    expected = {"ce": TEACHER, "disagreement": TEACHER - STUDENT, "agreement": TEACHER + STUDENT}
    for name, logits in expected.items():
        loss = F.cross_entropy(logits, LABELS)
        torch.testing.assert_close(TERMS[name](_answers()), loss)
        shares = F.one_hot(LABELS, 3).float()
        torch.testing.assert_close(TERMS[name](_answers(target=shares)), loss)


def test_statistics_are_averaged_over_layers() -> None:
    """(1 + 3) / 2."""
    assert float(TERMS["bns"](_answers())) == 2.0


def test_the_band_is_of_the_batchs_own_scale() -> None:
    """Entropies of a difference of 0, 1 and 9: the first is uniform (1), the last the least (0)."""
    gaps = (TEACHER - STUDENT).softmax(1)
    entropy = -(gaps * gaps.log()).sum(1)
    middle = float((entropy[1] - entropy[2]) / (math.log(3) - entropy[2]))
    assert 0.8 < middle < 1
    expected = (0.1 + (1 - 0.8) + (middle - 0.8)) / 3
    assert float(TERMS["band"](_answers())) == pytest.approx(expected, rel=1e-5)


def test_a_batch_without_a_difference_is_finite() -> None:
    """Student and teacher agree: every entropy is the largest, and its gradient is a number."""
    student = TEACHER.clone().requires_grad_()
    loss = TERMS["band"](_answers(student))
    loss.backward()
    assert math.isfinite(loss.item()) and student.grad.isfinite().all()


def test_the_total_is_the_weighted_sum() -> None:
    """A term without weight is not asked: the student may then be missing."""
    config = FineTune(generator_ce=2.0, generator_bns=0.5)
    shares = weights(config)
    assert shares == {"ce": 2.0, "bns": 0.5} and OF_STUDENT.isdisjoint(shares)
    total, *parts = weighted(_answers(student=None), shares)
    assert float(total) == pytest.approx(float(sum(parts)))
    assert float(parts[1]) == 1.0
    every = {f"generator_{name}": 1.0 for name in TERMS}
    assert list(weights(FineTune(**every))) == list(TERMS)
