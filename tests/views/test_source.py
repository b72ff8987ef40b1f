"""What the training loop and the calibration draw from the stored views."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from synq_tune.config import FineTune
from synq_tune.data.synthetic import SyntheticDataset
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.views.source import ViewSource
from synq_tune.views.teacher_cache import make_views
from tests.helpers import digits_dataset


@pytest.fixture(scope="module")
def dataset() -> SyntheticDataset:
    return digits_dataset(24, 0)


def _one_by_one(source: ViewSource) -> list[Tensor]:
    """Batch k of all epochs together, each drawn from the beginning of its epoch."""
    batches = []
    for number in range(source.config.calibration_batches):
        epoch, step = divmod(number, source.steps_per_epoch)
        batches.append(next(itertools.islice(source.batches(epoch), step, None)).images)
    return batches


@pytest.mark.parametrize(
    ("batch_size", "steps", "count"),
    [(5, None, 12), (24, None, 3), (8, 5, 7), (8, 2, 5), (7, None, 1)],
)
def test_calibration_renders_each_batch_once(
    teacher: LoadedTeacher,
    dataset: SyntheticDataset,
    monkeypatch: pytest.MonkeyPatch,
    batch_size: int,
    steps: int | None,
    count: int,
) -> None:
    """The images are those of the epochs in order, bit for bit, and none is made to be thrown away."""
    config = FineTune(
        batch_size=batch_size, steps_per_epoch=steps, calibration_batches=count, num_views=2, d0=4.0,
        lambda_cam=0.0, mix_weight=(0.5, 1.0),
    )  # fmt: skip
    views = make_views(teacher, dataset, config)
    source = ViewSource(dataset.train_images, dataset.train_labels, views, config, 3)
    expected = _one_by_one(source)
    rendered = []
    kind = type(views.transforms)
    pixels = kind.pixels
    monkeypatch.setattr(kind, "pixels", lambda *a: rendered.append(1) or pixels(*a))
    found = list(source.calibration_images())
    assert len(rendered) == len(found) == count
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
