"""Splits of labelled images: disjoint, stratified, seeded."""

from __future__ import annotations

import pytest
import torch

from synq_tune.data.images import LabelledImages
from synq_tune.data.split import split_halves, stratified_rows


def _numbered(counts: list[int]) -> LabelledImages:
    """Images that hold their own number; `counts` of each class, mixed."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    order = torch.randperm(len(labels))
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1)
    return LabelledImages(images, labels[order], tuple(map(str, range(len(counts)))))


def _numbers(data: LabelledImages) -> set[int]:
    return set(data.images.flatten().tolist())


def test_halves_are_disjoint_and_complete() -> None:
    """Every image is in exactly one half, with its own label."""
    data = _numbered([7, 12, 1, 5])
    halves = split_halves(data, seed=3)
    assert _numbers(halves[0]) | _numbers(halves[1]) == _numbers(data)
    assert not _numbers(halves[0]) & _numbers(halves[1])
    for half in halves:
        assert torch.equal(half.labels, data.labels[half.images.flatten().long()])


def test_halves_are_stratified() -> None:
    """Sizes differ by at most one, overall and in each class."""
    choose, report = split_halves(_numbered([7, 12, 1, 5, 9]), seed=0)
    difference = choose.labels.bincount(minlength=5) - report.labels.bincount(minlength=5)
    assert difference.abs().max() <= 1
    assert abs(len(choose) - len(report)) <= 1


def test_halves_follow_the_seed() -> None:
    """The same seed gives the same halves, another seed other ones."""
    data = _numbered([20, 20])
    first, again, other = (split_halves(data, seed)[0] for seed in (0, 0, 1))
    assert _numbers(first) == _numbers(again) != _numbers(other)


def test_subset_is_stratified() -> None:
    """Each class's share is its share of the whole, rounded up or down."""
    data = _numbered([40, 20, 10, 30])
    subset = data.subset(stratified_rows(data, 11, seed=0))
    assert len(subset) == len(_numbers(subset)) == 11
    shares = torch.tensor([40, 20, 10, 30]) * 11 / 100
    assert (subset.labels.bincount(minlength=4) - shares).abs().max() < 1


def test_subset_of_everything_is_everything() -> None:
    """Asking for at least as many images as there are gives all of them."""
    data = _numbered([3, 4])
    assert stratified_rows(data, 7, seed=0) is None
    assert stratified_rows(data, 100, seed=0) is None


def test_subset_of_nothing_is_an_error() -> None:
    """A count below one is refused."""
    with pytest.raises(ValueError, match="count >= 1"):
        stratified_rows(_numbered([3]), 0, seed=0)
