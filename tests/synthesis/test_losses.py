"""The objectives of the methods against values computed by hand, and what they achieve."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from synq_tune.config import Synthesis
from synq_tune.graph.batchnorm import batch_statistics
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.seeds import batch_generator
from synq_tune.synthesis.batches import batch_sizes
from synq_tune.synthesis.canvas import Pixels
from synq_tune.synthesis.centers import center_moments, center_weights, make_centers
from synq_tune.synthesis.dataset import synthesize
from synq_tune.synthesis.focal import focal_cross_entropy
from synq_tune.synthesis.optimize import (
    Descent,
    gaussian_pixels,
    optimize,
    plateau,
)
from synq_tune.synthesis.statistics import in_order, layer_gaps, remembered
from synq_tune.synthesis.synq import synq_objective
from tests.synthesis.conftest import MakeSpec


def _bns(teacher: LoadedTeacher, images: torch.Tensor) -> float:
    with batch_statistics(teacher.graph) as statistics, torch.no_grad():
        teacher(images.float())
    moments = in_order(teacher.graph, statistics)
    return layer_gaps(moments, remembered(teacher.graph)).mean().item()


def test_focal_by_hand() -> None:
    """Two equal logits: p = ½, so (½)^γ · ln 2."""
    logits = torch.zeros(3, 2)
    loss = focal_cross_entropy(logits, torch.tensor([0, 1, 0]), 0.5)
    assert loss.item() == pytest.approx(math.sqrt(0.5) * math.log(2))


def test_focal_without_exponent_is_cross_entropy() -> None:
    """γ = 0 is the plain class loss."""
    logits, labels = torch.randn(5, 4), torch.randint(4, (5,))
    assert focal_cross_entropy(logits, labels, 0.0) == F.cross_entropy(logits, labels)


def test_focal_gradient_flows_through_both_factors() -> None:
    """The gradient is that of the whole product (finite differences)."""
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 2, 1, 1])
    assert torch.autograd.gradcheck(lambda z: focal_cross_entropy(z, labels, 0.5), logits)


def test_focal_of_a_confident_image_is_finite() -> None:
    """Where the probability rounds to one, loss and gradient stay finite."""
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    loss = focal_cross_entropy(logits, torch.tensor([0]), 0.5)
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


def test_synq_objective_by_hand() -> None:
    """α1 · BNS + β · focal + α2 · layered BNS, on four layers of one channel."""
    config = Synthesis(alpha_bns=0.4, focal_beta=2.0, focal_gamma=0.5, alpha_layered=0.1)
    one = torch.ones(1)
    target = [(0 * one, one)] * 4
    batch = [(v * one, one) for v in (1, 2, 3, 4)]
    loss = synq_objective(config, target, [(one, one)] * 3, torch.tensor([0]))(
        torch.zeros(1, 2), batch
    )
    bns, layered = (1 + 4 + 9 + 16) / 4, (1 + 4 + 9) / 4
    focal = math.sqrt(0.5) * math.log(2)
    assert loss.item() == pytest.approx(0.4 * bns + 2.0 * focal + 0.1 * layered)


def test_center_weights() -> None:
    """0.2 before the split index, 1.1 from it."""
    torch.testing.assert_close(center_weights(4), torch.tensor([0.2, 1.1, 1.1, 1.1]))


def test_one_center_per_class(teacher: LoadedTeacher, tmp_path: Path) -> None:
    """Centres have every class once, in order, also over several batches; none is repeated."""
    config = Synthesis(batch_size=4, center_iterations=1)
    centers = make_centers(teacher, config, tmp_path, show=False)
    assert [len(c.tensors["labels"]) for c in centers] == [4, 3, 3]
    assert torch.cat([c.tensors["labels"] for c in centers]).tolist() == list(range(10))


def test_center_statistics_do_not_depend_on_batches(teacher: LoadedTeacher, tmp_path: Path) -> None:
    """Pooled over unequal batches they are those of all centres in one forward."""
    config = Synthesis(batch_size=4, center_iterations=1)
    centers = make_centers(teacher, config, tmp_path, show=False)
    with batch_statistics(teacher.graph) as statistics, torch.no_grad():
        teacher(torch.cat([c.tensors["images"] for c in centers]))
    whole = in_order(teacher.graph, statistics)
    pooled = center_moments(teacher, centers)
    for (mean, variance), (all_mean, all_variance) in zip(
        pooled, whole[-len(pooled) :], strict=True
    ):
        torch.testing.assert_close(mean, all_mean, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(variance, all_variance, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["synq", "noise"])
@pytest.mark.long
def test_statistics_come_nearer(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path, method: str
) -> None:
    """After 100 iterations the BNS loss is well below that of the noise it started from."""
    spec = make_spec(method=method, iterations=100, lr=0.2, perturbation=0, batch_size=16)
    dataset, _ = synthesize(teacher, spec, tmp_path, progress=False)
    start = gaussian_pixels(teacher, 16, batch_generator(0, "images", 0))
    assert _bns(teacher, dataset.images) < 0.5 * _bns(teacher, start)


@pytest.mark.parametrize("method", ["synq", pytest.param("noise", marks=pytest.mark.slow)])
@pytest.mark.long
def test_bfloat16_comes_as_near(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path, method: str
) -> None:
    """Another dataset with an address of its own, whose BNS loss, in float32, is as low."""
    ends = {}
    for precision in ("float32", "bfloat16"):
        spec = make_spec(
            method=method, iterations=100, lr=0.2, perturbation=0, batch_size=16,
            precision=precision,
        )  # fmt: skip
        ends[precision], _ = synthesize(teacher, spec, tmp_path, progress=False)
    full, half = ends["float32"], ends["bfloat16"]
    assert half.address != full.address and not torch.equal(half.images, full.images)
    assert _bns(teacher, half.images) < 1.2 * _bns(teacher, full.images)


@pytest.mark.parametrize("method", ["psaq", "images"])
def test_bfloat16_is_refused_where_nothing_would_read_it(method: str) -> None:
    """Rather than be ignored."""
    source = "." if method == "images" else None
    with pytest.raises(ValidationError, match="`precision is float32` must hold.*bfloat16"):
        Synthesis(method=method, source=source, precision="bfloat16")


def test_pixels_descend_whatever_the_gradients_strides(teacher: LoadedTeacher) -> None:
    """A network in channels_last, or one that starts with a permutation, leaves strided gradients."""
    start = torch.randn(4, 1, 8, 6, generator=torch.Generator().manual_seed(0))
    ends = []
    for look in (lambda x: x, lambda x: x.transpose(2, 3).contiguous().transpose(2, 3)):
        canvas = Pixels(start)
        seen: list[torch.Tensor] = []

        def loss(shown: torch.Tensor, logits: torch.Tensor, seen: list = seen) -> torch.Tensor:
            return (seen.pop() - 1).square().sum() + 0 * logits.sum()

        def padded(
            images: torch.Tensor, iteration: int, look: Callable = look, seen: list = seen
        ) -> torch.Tensor:
            seen.append(look(images))
            return F.pad(seen[-1], (0, 2))

        optimize(teacher, canvas, loss, Descent(20, 0.1), padded)
        ends.append(canvas.images().detach())
    torch.testing.assert_close(ends[0], ends[1])
    assert (ends[0] - 1).square().sum() < 0.2 * (start - 1).square().sum()


def test_plateau_lowers_the_rate(teacher: LoadedTeacher) -> None:
    """With a loss that never falls, the rate shrinks tenfold after each patience."""
    pixels = torch.zeros(1, 1, 8, 8)
    ramp = torch.zeros(())

    def rising(shown: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        ramp.add_(1)
        return shown.sum() + 0 * logits.sum() - shown.sum().detach() + ramp

    losses: list[float] = []
    canvas = Pixels(pixels)
    descent = Descent(8, 0.5, partial(plateau, patience=1, min_lr=0.0))
    final = optimize(teacher, canvas, rising, descent, on_step=losses.append)
    assert losses == [float(i) for i in range(1, 9)] and final == 8.0
    # Adam moves by its rate where gradients do not change: three steps, then two at each tenth.
    moved = -canvas.images().detach()
    torch.testing.assert_close(
        moved, torch.full_like(pixels, 3 * 0.5 + 2 * 0.05 + 2 * 0.005 + 0.0005)
    )
    assert torch.equal(pixels, torch.zeros(1, 1, 8, 8))


def test_batches_are_even() -> None:
    """The fewest batches that fit, without a runt at the end."""
    assert batch_sizes(512, 256) == [256, 256]
    assert batch_sizes(513, 256) == [171, 171, 171]
    assert batch_sizes(10, 4) == [4, 3, 3]
    assert batch_sizes(3, 8) == [3]
