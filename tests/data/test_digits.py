"""The bundled digits: two fixed halves, and a teacher that has seen one of them."""

from __future__ import annotations

import pytest
import torch

from synq_tune.config import Teacher
from synq_tune.data.digits import digits_half
from synq_tune.data.labelled import load_labelled
from synq_tune.errors import InputError
from synq_tune.models.preprocessing import Preprocessing
from synq_tune.models.teacher import load_teacher

DIGITS = Teacher(model="digits_resnet26", channels=1, num_classes=10)


def test_halves_divide_all_digits() -> None:
    """901 and 896 images of 8×8 pixels, the classes shared out evenly."""
    train, test = digits_half("train"), digits_half("test")
    assert (len(train), len(test)) == (901, 896)
    assert train.images.shape == (901, 1, 8, 8) and train.images.dtype == torch.uint8
    assert (train.labels.bincount() - test.labels.bincount()).abs().max() <= 1
    assert train.images.max() == 255


def test_no_image_is_in_both_halves() -> None:
    """The half measured on shares no image with the half the teacher has learned."""
    train, test = (digits_half(h).images.flatten(1).tolist() for h in ("train", "test"))
    assert not {tuple(row) for row in train} & {tuple(row) for row in test}


@torch.no_grad()
def test_bundled_teacher_is_good_on_the_unseen_half() -> None:
    """At least 98 % top-1."""
    teacher = load_teacher(DIGITS)
    data = load_labelled("digits", teacher.preprocessing, teacher.num_classes)
    predicted = teacher(teacher.preprocessing.normalize(data.images)).argmax(1)
    assert len(data) == 896
    assert (predicted == data.labels).float().mean() >= 0.98


def test_digits_fit_another_input() -> None:
    """A teacher with larger colour inputs gets resized colour images."""
    preprocessing = Preprocessing(32, 32, 3, (0.5,) * 3, (0.5,) * 3)
    data = load_labelled("digits", preprocessing, 10)
    assert data.images.shape == (896, 3, 32, 32) and data.images.dtype == torch.uint8


def test_another_number_of_classes_is_an_error() -> None:
    """Digits have ten classes; a teacher with seven cannot be measured on them."""
    with pytest.raises(InputError, match="number of classes == 7.*got 10"):
        load_labelled("digits", Preprocessing(8, 8, 1, (0.0,), (1.0,)), 7)
