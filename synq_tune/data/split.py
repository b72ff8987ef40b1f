"""Divide labelled images so that every part has the classes in the same proportions."""

from __future__ import annotations

import torch
from torch import Tensor

from synq_tune.data.images import LabelledImages


def _class_order(labels: Tensor, seed: int) -> Tensor:
    """Indices grouped by class, in random order within each class, (N,)."""
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return shuffled[labels[shuffled].argsort(stable=True)]


def split_halves(data: LabelledImages, seed: int) -> tuple[LabelledImages, LabelledImages]:
    """Two disjoint halves: one to choose on, one to report on.

    Neighbours in the class order go to different halves, so that sizes differ by at most one,
    overall and within each class.
    """
    order = _class_order(data.labels, seed)
    choose, report = order[0::2].sort().values, order[1::2].sort().values
    return data.subset(choose), data.subset(report)


def stratified_rows(data: LabelledImages, count: int, seed: int) -> Tensor | None:
    """Which `count` images have each class's share rounded up or down, (count,); None = all of
    them.

    Raises:
        ValueError: count < 1.
    """
    if count < 1:
        raise ValueError(f"`count >= 1` must hold, but got count={count}.")
    if count >= len(data):
        return None
    even = torch.arange(count) * len(data) // count
    return _class_order(data.labels, seed)[even].sort().values
