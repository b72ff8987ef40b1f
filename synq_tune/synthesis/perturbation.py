"""The difficulty perturbation, SynQ's third stage: one step that makes images harder."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from synq_tune.config import Bits
from synq_tune.data.batches import batch_size as most_at_once
from synq_tune.errors import NonFiniteLossError
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.quantization.student import calibrate, quantize_student
from synq_tune.synthesis.batches import to_half
from synq_tune.synthesis.optimize import device_of

_SHARE = 4
"""The graphs of both networks are held at once: so many times fewer images than without gradients.
Images do not influence each other here."""


def perturb(
    teacher: LoadedTeacher,
    images: Tensor,
    bits: Bits,
    quantizer: str,
    epsilon: float,
    batch_size: int,
) -> Tensor:
    """x + ε · sign(∇_x KL(teacher(x) ‖ student(x))) against the rounded-to-nearest student.

    Args:
        teacher: stays unchanged.
        images: (N, C, H, W), the training part; the student is calibrated on them.
        bits: of the student.
        quantizer: of the student.
        epsilon: step in normalised pixels, ≥ 0.
        batch_size: images at a time in calibration.

    Returns:
        (N, C, H, W) float16 on the CPU.

    Raises:
        NonFiniteLossError: a gradient or a pixel is not finite.
    """
    device = device_of(teacher)
    parts = images.split(batch_size)
    student = quantize_student(teacher, bits, quantizer)
    calibrate(student, (part.to(device).float() for part in parts))
    student.requires_grad_(False)
    at_once = max(1, most_at_once(*images.shape[2:], device) // _SHARE)
    steps = images.split(min(batch_size, at_once))
    harder = [_step(teacher, student, part.to(device).float(), epsilon) for part in steps]
    return torch.cat([to_half(part) for part in harder])


def _step(
    teacher: Callable[[Tensor], Tensor],
    student: Callable[[Tensor], Tensor],
    images: Tensor,
    epsilon: float,
) -> Tensor:
    """One signed step on a batch; the gradient flows through both networks."""
    images = images.detach().requires_grad_(True)
    teacher_log, student_log = (net(images).log_softmax(1) for net in (teacher, student))
    # The sum keeps each image's gradient independent of the batch; the sign ignores scale.
    divergence = F.kl_div(student_log, teacher_log, reduction="sum", log_target=True)
    (gradient,) = torch.autograd.grad(divergence, images)
    if not gradient.isfinite().all():  # the sign of NaN is 0, which would leave the image as it was
        raise NonFiniteLossError("the gradient of the perturbation is not finite.")
    return images.detach() + epsilon * gradient.sign()
