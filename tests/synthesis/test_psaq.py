"""PSAQ-ViT's synthesis: each term against its formula, and images that do what they are for."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from torchvision.models import resnet18

from synq_tune.config import Synthesis
from synq_tune.errors import InputError
from synq_tune.graph.attention import attention_outputs, open_attention
from synq_tune.graph.nodes import insert_after
from synq_tune.graph.taps import record
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.synthesis import psaq
from synq_tune.synthesis.patch_similarity import (
    Attention,
    KernelDensity,
    attentions,
    gaussian_kernel,
    head_means,
    similarity_entropy,
)
from tests.helpers import teacher_of


@pytest.fixture(scope="module")
def deit() -> LoadedTeacher:
    torch.manual_seed(0)
    model = timm.create_model(
        "deit_tiny_patch16_224", num_classes=5, img_size=16, patch_size=4, embed_dim=24, depth=2,
        num_heads=3,
    )  # fmt: skip
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return teacher_of(model, (3, 16, 16))


@pytest.fixture(scope="module")
def swin() -> LoadedTeacher:
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", num_classes=5, img_size=16, patch_size=2, window_size=4,
        embed_dim=16, depths=[2, 2], num_heads=[2, 4],
    )  # fmt: skip
    return teacher_of(model, (3, 16, 16))


def config(**changes: object) -> Synthesis:
    small = {"method": "psaq", "num_images": 6, "num_holdout": 2, "batch_size": 8, "iterations": 30}
    return Synthesis(**{**small, "lr": 0.2, **changes})


def test_the_class_token_is_dropped_and_nothing_else(
    deit: LoadedTeacher, swin: LoadedTeacher
) -> None:
    """DeiT has one token that is no patch; Swin's windows are patches throughout."""
    assert attentions(deit) == [Attention(f"blocks.{i}.attn.proj", 3, 1) for i in (0, 1)]
    assert [place.prefix for place in attentions(swin)] == [0, 0, 0, 0]
    images = torch.randn(2, 3, 16, 16)
    with head_means(swin.graph, attentions(swin)) as means:
        swin(images)
    # 8×8 patches in four windows of 16, then 4×4 in one.
    assert [tuple(m.shape) for m in means.values()] == [(8, 16, 8)] * 2 + [(2, 16, 8)] * 2


def test_a_norm_in_front_of_the_projection_is_passed_over() -> None:
    """BEiT-3 normalises all heads together."""
    beit = timm.create_model(
        "beit3_base_patch16_224", num_classes=5, img_size=16, patch_size=4, embed_dim=24, depth=1,
        num_heads=3,
    )  # fmt: skip
    assert attentions(teacher_of(beit, (3, 16, 16))) == [Attention("blocks.0.attn.proj", 3, 1)]


def test_the_projections_input_is_the_heads_mean(deit: LoadedTeacher) -> None:
    """What is read in front of the projection is attention · value, averaged over heads; no hook stays."""
    images = torch.randn(2, 3, 16, 16)
    opened = copy.deepcopy(deit.graph)
    open_attention(opened)
    node = attention_outputs(opened)[0]
    insert_after(opened, node, "look", torch.nn.Identity())
    opened.recompile()
    with record(opened, ["look"]) as values:
        opened(images)
    with head_means(deit.graph, attentions(deit)) as means:
        deit(images)
    torch.testing.assert_close(means["blocks.0.attn.proj"], values["look"].mean(1)[:, 1:])
    assert all(not m._forward_pre_hooks for m in deit.graph.modules())


@pytest.mark.parametrize("spread", [0.1, 2.0])
def test_density_is_a_sum_of_gaussians_with_its_gradient(spread: float) -> None:
    """Value and gradient of the frugal density are those of the formula written out."""
    values = torch.rand(3, 40, dtype=torch.float64).mul(spread).requires_grad_(True)
    points = torch.linspace(0, spread, 10, dtype=torch.float64)
    z = (points[None, :, None] - values[:, None, :]) / 0.01
    written = (torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi * 0.01**2)).mean(2)
    frugal = KernelDensity.apply(values, points)
    torch.testing.assert_close(frugal, written)
    direction = torch.randn(3, 10, dtype=torch.float64)
    (wanted,) = torch.autograd.grad((written * direction).sum(), values)
    (found,) = torch.autograd.grad((frugal * direction).sum(), values)
    torch.testing.assert_close(found, wanted)


def test_no_kernel_is_a_denormal_number() -> None:
    """With them a CPU takes ten times as long, and most similarities are far from a point."""
    kernels = gaussian_kernel(torch.linspace(-1, 1, 1001), torch.tensor(0.0))
    assert kernels.min() >= torch.finfo(torch.float32).tiny
    assert kernels.max() == pytest.approx(1 / (0.01 * math.sqrt(2 * math.pi)))


def test_entropy_by_loops() -> None:
    """Cosines of all pairs, windows of an image pooled, end points of the whole batch, trapezoids."""
    patches = torch.randn(4, 5, 6)  # two images of two windows
    samples = [[], []]
    for row, window in enumerate(patches):
        for a in window:
            samples[row // 2] += [float(F.cosine_similarity(a, b, dim=0)) for b in window]
    low, high = min(map(min, samples)), max(map(max, samples))
    points = [low + (high - low) * k / 9 for k in range(10)]
    total = 0.0
    for sample in samples:
        p = [
            sum(math.exp(-((t - s) ** 2) / 2e-4) for s in sample)
            / (len(sample) * math.sqrt(2 * math.pi * 1e-4)) + 1e-4
            for t in points
        ]  # fmt: skip
        h = [-v * math.log(v) for v in p]
        total += sum((points[k + 1] - points[k]) * (h[k] + h[k + 1]) / 2 for k in range(9))
    assert float(similarity_entropy(patches, 2)) == pytest.approx(total / 2, rel=1e-3)


def test_total_variation_is_four_norms_over_the_batch() -> None:
    """Horizontal, vertical and both diagonals; roots of sums of squares, not means."""
    x = torch.randn(2, 3, 4, 5)
    norms = 0.0
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        squares = sum(
            float((x[n, c, i + dy, j + dx] - x[n, c, i, j]) ** 2)
            for n in range(2) for c in range(3) for i in range(4 - dy) for j in range(5)
            if 0 <= j + dx < 5
        )  # fmt: skip
        norms += math.sqrt(squares)
    assert float(psaq.total_variation(x)) == pytest.approx(norms, rel=1e-5)


def test_constants_are_scaled_to_the_images() -> None:
    """At 32 images of 224 px PSAQ's own; elsewhere by the root of the values and by the height."""
    own, small = psaq.Scale((32, 3, 224, 224)), psaq.Scale((8, 3, 32, 32))
    assert (own.tv_target(0), own.tv_target(1)) == pytest.approx((2500, 3000))
    assert (own.jitter(0), own.jitter(1)) == (15, 30)
    share = math.sqrt(8 * 32 * 32 / (32 * 224 * 224))
    assert small.tv_target(0) == pytest.approx(2500 * share)
    assert (small.jitter(0), small.jitter(1)) == (2, 4)


def test_the_rate_rises_and_falls_twice() -> None:
    """500 iterations each: 100 of warm-up, then half a cosine to nearly zero."""
    rates = [psaq.phase_of(i, 1000) for i in range(1000)]
    assert [p for p, _ in rates] == [0] * 500 + [1] * 500
    factors = [f for _, f in rates]
    assert factors[:500] == factors[500:]
    assert factors[0] == pytest.approx(0.01) and factors[99] == factors[100] == 1.0
    assert factors[300] == pytest.approx(0.5) and factors[499] < 1e-4


def test_one_offset_moves_both_axes() -> None:
    """The whole batch is rolled along its diagonal and mirrored as one."""
    images = torch.arange(2 * 3 * 8 * 8.0).view(2, 3, 8, 8)
    generator = torch.Generator().manual_seed(0)
    seen = [psaq.shift_and_flip(images, 2, True, generator) for _ in range(40)]
    possible = [images.roll((k, k), (2, 3)) for k in range(-2, 3)]
    possible += [p.flip(3) for p in possible]
    found = [[torch.equal(s, p) for p in possible].index(True) for s in seen]
    assert set(found) == set(range(10))


def test_images_are_varied_valid_and_of_their_class(deit: LoadedTeacher, tmp_path: Path) -> None:
    """The entropy rises above that of noise, pixels stay within black and white."""
    draft = psaq.METHOD.synthesize(deit, config(), tmp_path, show=False)
    images = draft.images.float()
    assert images.shape == (8, 3, 16, 16) and draft.labels.shape == (8,)
    low, high = psaq.valid_range(deit.preprocessing, images)
    assert (images >= low - 1e-3).all() and (images <= high + 1e-3).all()

    def entropy(x: torch.Tensor) -> float:
        with torch.no_grad(), head_means(deit.graph, attentions(deit)) as means:
            deit(x)
            return float(sum(similarity_entropy(m, len(x)) for m in means.values()))

    noise = torch.randn_like(images).clamp(low, high)
    assert entropy(images) > entropy(noise)
    assert F.cross_entropy(deit(images), draft.labels) < F.cross_entropy(deit(noise), draft.labels)


def test_a_finished_batch_is_not_made_twice(deit: LoadedTeacher, tmp_path: Path) -> None:
    """The same seed gives the same images, whether batches are made or found."""
    settings = config(batch_size=4, iterations=4)
    first = psaq.METHOD.synthesize(deit, settings, tmp_path, show=False)
    (tmp_path / "images-00001.safetensors").unlink()
    before = (tmp_path / "images-00000.safetensors").stat().st_mtime_ns
    again = psaq.METHOD.synthesize(deit, settings, tmp_path, show=False)
    assert torch.equal(first.images, again.images) and torch.equal(first.labels, again.labels)
    assert (tmp_path / "images-00000.safetensors").stat().st_mtime_ns == before


def test_written_out_attention_is_found_as_well(deit: LoadedTeacher) -> None:
    """Whether a library fuses attention or not, the same places are looked at."""
    opened = copy.deepcopy(deit.graph)
    open_attention(opened)
    other = LoadedTeacher(deit.config, opened, deit.preprocessing, 5, deit.fingerprint)
    assert attentions(other) == attentions(deit)


def test_a_network_without_attention_is_refused() -> None:
    """The message names the way for networks with BatchNorm."""
    with pytest.raises(InputError, match="has attention.*Use synthesis.method=synq"):
        attentions(teacher_of(resnet18(num_classes=5), (3, 32, 32)))
