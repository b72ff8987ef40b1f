"""What a network promises."""

from __future__ import annotations

import copy

import torch
from torch import fx, nn

from synq_tune.config import Bits, FineTune, Teacher
from synq_tune.finetune.loop import TrainingStep
from synq_tune.graph.attention import attention_outputs
from synq_tune.models.teacher import LoadedTeacher, load_teacher
from synq_tune.quantization.student import calibrate, quantize_student
from synq_tune.synthesis.statistics import remembered
from synq_tune.testing.promise import promised
from synq_tune.views.difficulty import difficulty
from synq_tune.views.source import Batch

_BITS = Bits(weights=4, activations=4)
# The network comes from the caller, so its name can only say who was given it.
_GIVEN = f"python:{__name__}:check_network"


def check_network(model: nn.Module, shape: tuple[int, int, int], quantizer: str = "minmax") -> None:
    """Check that a network can be a teacher and that its student can be trained.

    It can be traced, has BatchNorm or attention, gives logits (N, K), is quantized at 4 bits, and
    one step of fine-tuning gives finite losses and moves weights. The network itself stays
    unchanged.

    Args:
        model: with its weights.
        shape: (channels, height, width) of an image.
        quantizer: what quantizes it.

    Raises:
        AssertionError: a promise is broken; the text says which.
    """
    teacher = _teacher(copy.deepcopy(model).eval(), shape)
    with promised("the network has BatchNorm or attention"):
        if not attention_outputs(teacher.graph):
            remembered(teacher.graph)
    images = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = teacher(images)
    assert logits.isfinite().all(), "`logits are finite` must hold, but they are not."
    with promised("the network is quantized at 4 bits"), torch.enable_grad():
        student = quantize_student(teacher, _BITS, quantizer)
        calibrate(student, [images])
    _check_step(student, images, logits)


def _teacher(model: nn.Module, shape: tuple[int, int, int]) -> LoadedTeacher:
    channels, height, width = shape
    config = Teacher(
        model=_GIVEN,
        input_size=(height, width),
        channels=channels,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
    )
    with promised("the network is traced and gives logits (N, K)"):
        return load_teacher(config, model=model)


def _check_step(student: fx.GraphModule, images: torch.Tensor, logits: torch.Tensor) -> None:
    labels = logits.argmax(1)
    batch = Batch(images, labels, logits, None, difficulty(logits, labels))
    # Every image gives cross-entropy: a student that already agrees would have nothing to learn.
    config = FineTune(lambda_cam=0.0, tau=None, lambda_ce=1.0)
    losses = TrainingStep(student, config, None)(batch)
    assert losses.isfinite().all(), (
        f"`losses of one step are finite` must hold, but got {losses.tolist()}."
    )
    losses[0].backward()
    gradients = [p.grad for p in student.parameters() if p.grad is not None]
    assert gradients and all(g.isfinite().all() for g in gradients), (
        "`one step has finite gradients` must hold, but they are missing, NaN or infinite."
    )
    assert any(g.abs().sum() > 0 for g in gradients), (
        "`one step moves weights` must hold, but every gradient is zero."
    )
