"""What the training loop and the calibration draw from the stored views."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from synq_tune.config import FineTune
from synq_tune.data.synthetic import SyntheticDataset
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.views.difficulty import difficulty
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


def _source(teacher: LoadedTeacher, dataset: SyntheticDataset, **settings: object) -> ViewSource:
    config = FineTune(batch_size=24, num_views=2, d0=4.0, lambda_cam=20.0, **settings)
    views = make_views(teacher, dataset, config)
    return ViewSource(dataset.train_images, dataset.train_labels, views, config, 3)


def test_what_comes_with_an_image_is_of_its_view(
    teacher: LoadedTeacher, dataset: SyntheticDataset
) -> None:
    """Logits are the teacher's of these pixels, the difficulty is that of these logits, and the next
    epoch takes the next view."""
    source = _source(teacher, dataset)
    for epoch in range(3):
        (batch,) = source.batches(epoch)
        torch.testing.assert_close(
            batch.teacher_logits, teacher(batch.images), atol=0.05, rtol=0.01
        )
        expected = difficulty(batch.teacher_logits, batch.labels)
        torch.testing.assert_close(batch.difficulty, expected, atol=0.01, rtol=0)
    pixels = [_sorted(next(iter(source.batches(epoch))).images) for epoch in range(3)]
    assert torch.equal(pixels[0], pixels[2]) and not torch.equal(pixels[0], pixels[1])


def _sorted(images: Tensor) -> Tensor:
    """Sums of the images, whatever their order."""
    return images.double().sum((1, 2, 3)).sort()[0]


def test_each_epoch_has_an_order_of_its_own(
    teacher: LoadedTeacher, dataset: SyntheticDataset
) -> None:
    """The same for the same seed and epoch, another for each epoch and for each seed."""
    source = _source(teacher, dataset)
    orders = [next(iter(source.batches(epoch))).labels for epoch in (0, 0, 1, 2)]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2]) and not torch.equal(orders[2], orders[3])
    source.seed = 4
    assert not torch.equal(orders[0], next(iter(source.batches(0))).labels)
