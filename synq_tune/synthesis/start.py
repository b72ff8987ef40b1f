"""What a batch of pixels is before it is optimised."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from synq_tune.models.teacher import LoadedTeacher
from synq_tune.synthesis.optimize import device_of, gaussian_pixels
from synq_tune.synthesis.shapes import draw_shapes


def first_pixels(
    teacher: LoadedTeacher,
    start: Literal["noise", "shapes"],
    count: int,
    generator: torch.Generator,
    margin: int = 0,
) -> Tensor:
    """Images (count, C, H, W) float32 to start from, drawn on the CPU, on the teacher's device.

    Args:
        teacher: says their shape.
        start: `noise` is N(0, 1); `shapes` see `draw_shapes`.
        count: number of images.
        generator: on the CPU.
        margin: pixels more on each side.
    """
    channels, height, width = teacher.preprocessing.shape
    shape = (channels, height + 2 * margin, width + 2 * margin)
    if start == "noise":
        return gaussian_pixels(teacher, count, generator, shape)
    return draw_shapes(count, shape, generator).to(device_of(teacher))
