"""Accuracy, its interval, and agreement with the teacher."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from synq_tune.config import Study
from synq_tune.data.labelled import load_labelled
from synq_tune.data.synthetic import SyntheticDataset
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.trial.assets import parity_share
from synq_tune.trial.evaluation import (
    AgreementSet,
    confidence_interval,
    load_agreement_set,
    make_probes,
    predict,
    top1,
)


@pytest.mark.parametrize(
    ("percent", "count", "low", "high"),
    [(50.0, 100, 40.383, 59.617), (100.0, 50, 92.865, 100.0), (0.0, 50, 0.0, 7.135)],
)
def test_wilsons_interval(percent: float, count: int, low: float, high: float) -> None:
    """Published values of the 95 % score interval."""
    assert confidence_interval(percent, count) == pytest.approx((low, high), abs=1e-3)


def test_the_bundled_teacher_reads_digits_it_never_saw(teacher: LoadedTeacher) -> None:
    """The half that evaluates is read at the accuracy the README gives."""
    data = load_labelled("digits", teacher.preprocessing, 10)
    assert top1(teacher, data, teacher.preprocessing) == pytest.approx(99.44, abs=0.01)


def test_probes_are_the_same_for_every_trial(teacher: LoadedTeacher) -> None:
    """Hold-out, crops and mixes: three times the hold-out, seeded by the dataset alone."""
    images = torch.randn(40, 1, 8, 8).half()
    labels = torch.zeros(40, dtype=torch.int64)
    dataset = SyntheticDataset(images, labels, 16, "noise", "1" * 32, "0" * 64, Path("none"), {})
    first, again = make_probes(teacher, dataset), make_probes(teacher, dataset)
    assert first.images.shape == (48, 1, 8, 8)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.images[:16], images[24:])


@pytest.mark.parametrize("count", [2, 3, 4, 5, 16])
def test_what_reports_did_not_choose(teacher: LoadedTeacher, tmp_path: Path, count: int) -> None:
    """As many images again, none of which is a choosing probe or a training image, and no pair twice."""
    images = torch.randn(40, 1, 8, 8).half()
    labels = torch.zeros(40, dtype=torch.int64)
    dataset = SyntheticDataset(images, labels, count, "noise", "1" * 32, "0" * 64, Path("none"), {})
    choose, report = (
        load_agreement_set(teacher, dataset, tmp_path, part) for part in ("choose", "report")
    )
    assert torch.equal(report.images, make_probes(teacher, dataset, "report").images)
    assert report.images.shape == choose.images.shape
    nearest = torch.cdist(report.images.float().flatten(1), choose.images.float().flatten(1)).min()
    assert nearest > 0.01
    assert torch.equal(predict(teacher, report.images, "cpu"), report.teacher_logits)
    assert torch.equal(load_agreement_set(teacher, dataset, tmp_path).images, choose.images)
    if count > 3:
        mixes = [_pairs(part.images[first : first + count], dataset.holdout_images)
                 for part, first in ((choose, 2 * count), (report, count))]  # fmt: skip
        assert not set(mixes[0]) & set(mixes[1])


def _pairs(mixes: Tensor, sources: Tensor) -> list[frozenset[int]]:
    """Which two images each was mixed from: those that a least-squares fit gives weight."""
    weights = torch.linalg.lstsq(sources.float().flatten(1).T, mixes.float().flatten(1).T).solution
    return [frozenset(column.topk(2).indices.tolist()) for column in weights.T]


def test_stored_probes_are_the_probes(teacher: LoadedTeacher, tmp_path: Path) -> None:
    """What the store gives, first and later, is what the dataset's probes are."""
    images = torch.randn(40, 1, 8, 8).half()
    labels = torch.zeros(40, dtype=torch.int64)
    dataset = SyntheticDataset(images, labels, 16, "noise", "1" * 32, "0" * 64, Path("none"), {})
    made = make_probes(teacher, dataset)
    for _ in range(2):
        stored = load_agreement_set(teacher, dataset, tmp_path)
        assert torch.equal(stored.images, made.images)
        assert torch.equal(stored.teacher_logits, made.teacher_logits)


def test_accuracy_of_some_rows_is_that_of_the_subset(teacher: LoadedTeacher) -> None:
    """Choosing rows without copying the images measures the same."""
    data = load_labelled("digits", teacher.preprocessing, 10)
    rows = torch.arange(3, 600, 2)
    flipped = lambda x: teacher(x.flip(3))  # noqa: E731
    assert top1(flipped, data, teacher.preprocessing, rows=rows) == top1(
        flipped, data.subset(rows), teacher.preprocessing
    )


def test_the_teacher_agrees_with_itself(teacher: LoadedTeacher) -> None:
    """100 % and no divergence; another network agrees less and diverges."""
    images = torch.randn(40, 1, 8, 8).half()
    labels = torch.zeros(40, dtype=torch.int64)
    dataset = SyntheticDataset(images, labels, 16, "noise", "1" * 32, "0" * 64, Path("none"), {})
    probes = make_probes(teacher, dataset)
    same = probes.compare(teacher)
    assert same["agreement"] == 100.0
    assert same["holdout_kl"] == pytest.approx(0.0, abs=1e-6)
    other = probes.compare(lambda x: -teacher(x))
    assert other["agreement"] < 50
    assert other["holdout_kl"] > 0.1


def test_the_distance_of_logits_is_that_of_what_decides() -> None:
    """A number added to all logits of an image changes nothing; scaling them does."""
    logits = torch.tensor([[1.0, -1.0, 0.0], [4.0, 2.0, 0.0]])
    probes = AgreementSet(torch.zeros(2, 1, 1, 1).half(), logits)
    moved = torch.tensor([[5.0], [-3.0]])
    assert probes.compare(lambda x: logits + moved)["holdout_mse"] == pytest.approx(0.0, abs=1e-9)
    # Twice as far from the mean: off by 1, 1, 0 and 2, 0, 2.
    assert probes.compare(lambda x: 2 * logits)["holdout_mse"] == pytest.approx(10 / 6)


@pytest.mark.parametrize(
    ("asked", "shape", "most"),
    [
        ("auto", (3, 224, 224), 2000),
        ("auto", (3, 448, 448), 2000),
        ("auto", (3, 32, 32), 98_000),
        (64, (3, 32, 32), 64),
    ],
)
def test_large_images_are_compared_in_part(
    asked: str | int, shape: tuple[int, ...], most: int
) -> None:
    """50,000 photos would keep a processor for hours; the user's own number counts."""
    study = Study.model_validate({"parity_images": asked})
    assert parity_share(study, shape) == most
