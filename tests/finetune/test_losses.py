"""The losses against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from synq_tune.finetune.losses import (
    cam_loss,
    distillation_loss,
    feature_loss,
    gap_loss,
    masked_cross_entropy,
)
from synq_tune.views.difficulty import difficulty, entropy_share


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_distillation_is_t_squared_times_batchmean_kl(temperature: float) -> None:
    """Σ_k p_t log(p_t / p_s), averaged over the batch, times T²."""
    student = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
    teacher = torch.tensor([[2.0, 0.0], [0.5, 0.5]])
    p, q = (torch.softmax(x / temperature, 1) for x in (teacher, student))
    expected = temperature**2 * (p * (p / q).log()).sum(1).mean()
    loss = distillation_loss(student, teacher, temperature)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)


def test_equal_logits_cost_nothing() -> None:
    """The minimum is the teacher itself."""
    logits = torch.randn(3, 5)
    for loss in (distillation_loss, gap_loss):
        assert float(loss(logits, logits, 4.0)) == pytest.approx(0.0, abs=1e-5)


def test_the_mean_over_classes_is_a_kth() -> None:
    """GDFQ's code averages over classes as well."""
    student, teacher = torch.randn(3, 5), torch.randn(3, 5)
    whole, share = (distillation_loss(student, teacher, 4.0, r) for r in ("batchmean", "mean"))
    torch.testing.assert_close(share, whole / 5)


def test_the_gap_is_drawn_to_uniform() -> None:
    """T² (ln K - H): by hand; a number added to all logits costs nothing."""
    student, teacher = torch.randn(3, 5), torch.randn(3, 5)
    p = ((teacher - student) / 2).softmax(1)
    expected = 4 * (math.log(5) + (p * p.log()).sum(1).mean())
    torch.testing.assert_close(gap_loss(student, teacher, 2.0), expected)
    assert float(gap_loss(teacher + 3, teacher, 2.0)) == pytest.approx(0.0, abs=1e-5)


def test_shares_of_classes_are_masked_like_labels() -> None:
    """Shares of one class are that class; a hard image gives nothing."""
    logits, labels, hard = torch.randn(4, 3), torch.tensor([0, 1, 2, 0]), torch.rand(4)
    shares = F.one_hot(labels, 3).float()
    expected = masked_cross_entropy(logits, labels, hard, 0.5)
    torch.testing.assert_close(masked_cross_entropy(logits, shares, hard, 0.5), expected)
    torch.testing.assert_close(difficulty(logits, shares), difficulty(logits, labels))


def test_difficulty_is_one_minus_the_labels_probability() -> None:
    """Eq. 3."""
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])
    torch.testing.assert_close(difficulty(logits, torch.tensor([1, 0])), torch.tensor([0.5, 0.25]))


@pytest.mark.parametrize(("strict", "kept"), [(False, [0, 1]), (True, [0])])
def test_hard_samples_give_no_cross_entropy(strict: bool, kept: list[int]) -> None:
    """Kept iff δ ≤ τ (or < τ); the sum is divided by B, not by the number kept."""
    logits = torch.randn(3, 4, requires_grad=True)
    labels = torch.tensor([1, 2, 0])
    loss = masked_cross_entropy(logits, labels, torch.tensor([0.1, 0.5, 0.9]), 0.5, strict)
    expected = sum(F.cross_entropy(logits[i], labels[i]) for i in kept) / 3
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert (logits.grad[2] == 0).all()


def test_no_easy_sample_gives_zero_with_its_graph() -> None:
    """A batch of hard samples does not break the step."""
    logits = torch.randn(2, 4, requires_grad=True)
    loss = masked_cross_entropy(logits, torch.tensor([0, 1]), torch.ones(2), 0.5)
    loss.backward()
    assert float(loss) == 0.0
    assert (logits.grad == 0).all()


def test_no_threshold_is_plain_cross_entropy() -> None:
    """τ = None switches the mask off."""
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    loss = masked_cross_entropy(logits, labels, torch.ones(5), None)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels))


@pytest.mark.parametrize(("strict", "kept"), [(False, [0, 1]), (True, [0])])
def test_hard_samples_are_asked_for_another_answer(strict: bool, kept: list[int]) -> None:
    """-Σ_k q_k ln p_k of what they are asked for, beside the others' -ln p_label, over all."""
    logits, labels = torch.randn(3, 4), torch.tensor([2, 0, 1])
    answer = torch.randn(3, 4).softmax(1)
    log = logits.softmax(1).log()
    rows = [-log[i, labels[i]] if i in kept else -(answer[i] * log[i]).sum() for i in range(3)]
    hard = torch.tensor([0.1, 0.5, 0.9])
    loss = masked_cross_entropy(logits, labels, hard, 0.5, strict, answer)
    torch.testing.assert_close(loss, sum(rows) / 3)


def test_unsureness_is_the_entropys_share() -> None:
    """0 for one class, 1 for all alike, ln 2 / ln 4 for two of four; finite at far logits."""
    logits = torch.tensor([[200.0, 0, 0, 0], [3, 3, 3, 3], [0, 50, 50, 0]])
    torch.testing.assert_close(entropy_share(logits), torch.tensor([0.0, 1.0, 0.5]))
    far = entropy_share(torch.tensor([[1e4, -1e4, 0.0]]))
    assert far.isfinite().all() and 0 <= float(far) < 1e-6


def test_cam_loss_sums_or_averages_cells() -> None:
    """Eq. 5's squared Frobenius norm, averaged over the batch; or the mean over cells."""
    a, b = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]]), torch.zeros(2, 1, 2)
    assert float(cam_loss(a, b, "sum")) == 2.5
    assert float(cam_loss(a, b, "mean")) == 1.25


def test_feature_loss_ignores_scale_and_place() -> None:
    """Channel attention is normalised: only the balance of channels matters."""
    maps = torch.rand(2, 3, 4, 4)
    assert float(feature_loss([maps], [7 * maps.flip(3)])) == pytest.approx(0.0, abs=1e-10)
    one = torch.zeros(1, 2, 1, 1)
    other = one.clone()
    one[0, 0], other[0, 1] = 1.0, 1.0  # attention (1, 0) against (0, 1)
    assert float(feature_loss([one, one], [other, other])) == pytest.approx(2.0)


@pytest.mark.parametrize("name", ["kd", "gap", "ce", "cam", "feature"])
def test_gradients_are_right(name: str) -> None:
    """Analytic gradients equal finite differences in float64."""
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    y = torch.randn(3, 4, dtype=torch.float64)
    maps = torch.rand(3, 2, 2, dtype=torch.float64, requires_grad=True)
    features = torch.rand(3, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    labels, hard = torch.tensor([0, 1, 3]), torch.tensor([0.1, 0.9, 0.2], dtype=torch.float64)
    calls = {
        "kd": (lambda v: distillation_loss(v, y, 3.0), x),
        "gap": (lambda v: gap_loss(v, y, 3.0), x),
        "ce": (lambda v: masked_cross_entropy(v, labels, hard, 0.5), x),
        "cam": (lambda v: cam_loss(v, torch.ones_like(v), "sum"), maps),
        "feature": (lambda v: feature_loss([v], [torch.ones_like(v)]), features),
    }
    call, value = calls[name]
    assert torch.autograd.gradcheck(call, (value,))
