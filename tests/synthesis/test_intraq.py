"""IntraQ's images: of several certainties, and not all the same within a class."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from synq_tune.config.synthesis import SynqSettings
from synq_tune.errors import InputError
from synq_tune.graph.classifier import features_read, last_layer
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.synthesis import synthesizer
from synq_tune.synthesis.band import ClassMeans, band_loss
from synq_tune.synthesis.batches import batch_name
from synq_tune.synthesis.dataset import synthesize
from synq_tune.synthesis.generated import GeneratedImages
from synq_tune.synthesis.shards import Shard, load_or_make
from synq_tune.synthesis.soft_target import draw_targets, soft_target_loss
from tests.helpers import teacher_of
from tests.synthesis.conftest import MakeSpec

OWN = {"alpha_layered": 0, "perturbation": 0, "focal_gamma": 0, "num_images": 30, "num_holdout": 6}
BAND = {"soft_target": 0.9, "alpha_band": 1.0, "band_limits": [0.3, 0.4], "batch_size": 12}


@pytest.mark.parametrize("least", [0.0, 0.6, 1.0])
def test_half_of_the_targets_are_certain(least: float) -> None:
    """The others are even between the least and 1."""
    targets = draw_targets(4000, least, torch.Generator().manual_seed(0))
    assert targets.min() >= least and targets.max() <= 1
    soft = targets[targets < 1]
    if least == 1:
        assert not len(soft)
    else:
        assert len(soft) / 4000 == pytest.approx(0.5, abs=0.03)
        assert soft.mean().item() == pytest.approx((1 + least) / 2, abs=0.03 * (1 - least))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_soft_target_loss_by_hand(gamma: float) -> None:
    """(1 - p)^γ (p - t)², averaged; a reached target costs nothing."""
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0], [0.0, math.log(4.0)]])
    labels, targets = torch.tensor([0, 0, 1]), torch.tensor([0.75, 0.75, 1.0])
    rows = [0.5**gamma * 0.25**2, 0.0, 0.2**gamma * 0.2**2]
    loss = soft_target_loss(logits, labels, targets, gamma)
    assert loss.item() == pytest.approx(sum(rows) / 3, abs=1e-6)


def test_the_band_by_hand() -> None:
    """Distances 0, 1 and 2 from a class's mean; an image of an unknown class does not count."""
    means = torch.tensor([[2.0, 0.0], [9.0, 9.0]]), torch.tensor([True, False])
    features = torch.tensor([[1.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [1.0, 1.0]])
    labels = torch.tensor([0, 0, 0, 1])
    loss = band_loss(features, labels, means, (0.05, 0.8))
    assert loss.item() == pytest.approx((0.05 + 0.2 + 1.2) / 3)
    assert band_loss(features, labels, means, (0.0, 2.0)).item() == 0
    assert band_loss(features[3:], labels[3:], means, (0.05, 0.8)).item() == 0
    assert band_loss(features, labels, None, (0.05, 0.8)).item() == 0


def _shard(number: int) -> Shard:
    generator = torch.Generator().manual_seed(number)
    images = torch.randn(7, 1, 8, 8, generator=generator).half()
    return Shard({"images": images, "labels": torch.arange(7) % 4}, 0.0)


@torch.no_grad()
def test_means_are_of_all_finished_batches(teacher: LoadedTeacher, tmp_path: Path) -> None:
    """What the pooled last maps of a class's images are on average; later batches join in."""
    means = ClassMeans(teacher, tmp_path)
    assert means.means() is None
    shards = [_shard(number) for number in range(2)]
    for number, shard in enumerate(shards):
        load_or_make(tmp_path, batch_name(number), lambda shard=shard: shard)
        found, is_known = means.means()
    assert is_known.tolist() == [True] * 4 + [False] * 6
    images = torch.cat([shard.tensors["images"] for shard in shards]).float()
    labels = torch.cat([shard.tensors["labels"] for shard in shards])
    with features_read(last_layer(teacher.graph)) as features:
        logits = teacher(images)
    layer = last_layer(teacher.graph)
    torch.testing.assert_close(features[0] @ layer.weight.T + layer.bias, logits)
    for k in range(4):
        torch.testing.assert_close(found[k], features[0][labels == k].mean(0))


@torch.no_grad()
def test_a_batch_that_is_made_again_is_not_its_own_mean(
    teacher: LoadedTeacher, tmp_path: Path
) -> None:
    """Files behind a missing one do not count: they are of a run that was damaged."""
    load_or_make(tmp_path, batch_name(1), lambda: _shard(1))
    assert ClassMeans(teacher, tmp_path).means() is None


def _inner_distance(teacher: LoadedTeacher, made: GeneratedImages, first: int) -> torch.Tensor:
    """1 - cosine of the images from `first` on to the means of the classes of those before."""
    with features_read(last_layer(teacher.graph)) as features, torch.no_grad():
        teacher(made.images.float())
    rows, labels = features[0], made.labels
    pairs = [
        (rows[i], rows[:first][labels[:first] == labels[i]].mean(0))
        for i in range(first, len(rows))
        if (labels[:first] == labels[i]).any()
    ]
    return torch.stack([1 - torch.cosine_similarity(a, b, dim=0) for a, b in pairs])


@pytest.mark.long
def test_the_band_keeps_images_at_a_distance(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """Beyond the first batch more of them lie within it than without the term."""
    inside = {}
    for weight in (0.0, 30.0):
        settings = {**OWN, **BAND, "alpha_band": weight, "iterations": 25, "lr": 0.2}
        settings |= {"num_images": 20, "num_holdout": 4}
        config = make_spec(**settings).synthesis
        made = synthesizer("synq").synthesize(teacher, config, tmp_path / str(weight), False)
        distance = _inner_distance(teacher, made, 12)
        outside = (0.3 - distance).relu() + (distance - 0.4).relu()
        inside[weight] = outside.mean().item()
    assert inside[30.0] < 0.5 * inside[0.0]


@pytest.mark.long
def test_images_have_the_certainty_they_are_drawn_to(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """With certain targets alone the teacher becomes sure; drawn to ½ and more it is less so."""
    sure = {}
    for least in (1.0, 0.0):
        settings = {**OWN, "soft_target": least, "iterations": 40, "lr": 0.2, "batch_size": 24}
        settings |= {"num_images": 20, "num_holdout": 4}
        settings |= {"alpha_bns": 0.01, "focal_beta": 10.0}
        config = make_spec(**settings).synthesis
        made = synthesizer("synq").synthesize(teacher, config, tmp_path / str(least), False)
        with torch.no_grad():
            p = teacher(made.images.float()).softmax(1).gather(1, made.labels[:, None])
        sure[least] = p.mean().item()
    assert sure[1.0] > 0.9 and 0.6 < sure[0.0] < sure[1.0] - 0.05


def test_a_stopped_run_goes_on_bit_for_bit(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """The means are those of the stored batches, whoever made them; a damaged one changes nothing."""
    config = make_spec(**OWN, **BAND, iterations=3).synthesis
    method, folder = synthesizer("synq"), tmp_path / "b"
    whole = method.synthesize(teacher, config, tmp_path / "a", False)
    method.synthesize(teacher, config, folder, False)
    for name in (batch_name(2), batch_name(1)):
        (folder / f"{name}.json").unlink()
        resumed = method.synthesize(teacher, config, folder, False)
        assert torch.equal(whole.images, resumed.images)
        assert torch.equal(whole.labels, resumed.labels) and whole.notes == resumed.notes
    without = make_spec(**OWN, **{**BAND, "alpha_band": 0}, iterations=3).synthesis
    other = method.synthesize(teacher, without, tmp_path / "c", False)
    assert torch.equal(whole.images[:12], other.images[:12])  # the first batch knows no mean
    assert not torch.equal(whole.images[12:], other.images[12:])


@pytest.mark.parametrize(
    "changes", [{"soft_target": 0.5}, {"alpha_band": 0.1}, {"band_limits": [0.1, 0.2]}]
)
def test_each_field_is_in_the_address(changes: dict[str, object]) -> None:
    """Other images are another dataset; fields that are off leave addresses as they were."""
    assert SynqSettings(**changes).address() != SynqSettings().address()
    assert not {"soft_target", "alpha_band", "band_limits"} & SynqSettings().address().keys()


def test_a_band_needs_features(make_spec: MakeSpec, tmp_path: Path) -> None:
    """A network whose last layer gives no logits is refused in one line."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    teacher = teacher_of(nn.Sequential(model, nn.Linear(4, 6), nn.GLU(1)), (1, 8, 8))
    spec = make_spec(**OWN, **BAND)
    with pytest.raises(
        InputError, match=r"gives the logits` must hold with alpha_band, but got \(6"
    ):
        synthesize(teacher, spec, tmp_path, progress=False)
