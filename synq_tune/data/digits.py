"""scikit-learn's 1,797 digits of 8×8 pixels: half to train on and half to measure on."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from synq_tune.data.images import LabelledImages

_WHITE = 16  # scikit-learn's largest grey value


def digits_half(half: Literal["train", "test"]) -> LabelledImages:
    """One half of the digits: within each class, images go to "train" and "test" in turn.

    No random number takes part, so that no library version can ever move an image from the half
    the bundled teacher has learned into the half it is measured on.

    Returns:
        uint8 images (N, 1, 8, 8) = round(v · 255 / 16); N is 901 for "train" and 896 for "test".
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (torch.from_numpy(digits.images) * 255 / _WHITE).round().to(torch.uint8)
    labels = torch.from_numpy(digits.target).to(torch.int64)
    names = tuple(str(name) for name in digits.target_names)
    wanted = _is_even_occurrence(labels) == (half == "test")
    return LabelledImages(images[:, None][wanted], labels[wanted], names)


def _is_even_occurrence(labels: Tensor) -> Tensor:
    """Whether an image is the 2nd, 4th, … of its class, (N,) bool."""
    one_hot = torch.nn.functional.one_hot(labels)
    rank = (one_hot.cumsum(0) * one_hot).sum(1)
    return rank % 2 == 0
