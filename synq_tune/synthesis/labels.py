"""Labels of images that came without."""

from __future__ import annotations

import torch
from torch import Tensor

from synq_tune.models.teacher import LoadedTeacher
from synq_tune.synthesis.optimize import device_of


@torch.no_grad()
def teacher_labels(teacher: LoadedTeacher, images: Tensor, batch_size: int) -> Tensor:
    """The teacher's arg-max (N,) int64 on the CPU, of images (N, C, H, W) in any float type."""
    device = device_of(teacher)
    parts = [teacher(p.to(device).float()).argmax(1).cpu() for p in images.split(batch_size)]
    return torch.cat(parts)
