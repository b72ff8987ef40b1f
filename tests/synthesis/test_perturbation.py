"""The perturbation makes images harder for the student and touches the training part alone."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F

from synq_tune.config import Bits
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.quantization.student import calibrate, quantize_student
from synq_tune.synthesis.dataset import synthesize
from synq_tune.synthesis.perturbation import perturb
from tests.synthesis.conftest import MakeSpec

W3A3 = Bits(weights=3, activations=3)


def _divergence(teacher: LoadedTeacher, calibrated_on: torch.Tensor, images: torch.Tensor) -> float:
    student = quantize_student(teacher, W3A3, "minmax")
    calibrate(student, [calibrated_on])
    with torch.no_grad():
        logs = [net(images).log_softmax(1) for net in (student, teacher)]
    return F.kl_div(*logs, reduction="batchmean", log_target=True).item()


def test_step_has_its_length_and_direction(teacher: LoadedTeacher) -> None:
    """Pixels move by ±ε (or not at all), and student and teacher disagree more afterwards."""
    images = torch.randn(64, 1, 8, 8)
    harder = perturb(teacher, images, W3A3, "minmax", 0.01, batch_size=64).float()
    assert (harder - images).abs().max() <= 0.01 + 2e-3  # float16
    assert ((harder - images).abs() > 0.005).float().mean() > 0.9
    assert _divergence(teacher, images, harder) > _divergence(teacher, images, images)


def test_holdout_stays_unperturbed(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """Only the training part differs from the base."""
    base, _ = synthesize(teacher, make_spec(perturbation=0), tmp_path, progress=False)
    dataset, _ = synthesize(teacher, make_spec(perturbation=0.1), tmp_path, progress=False)
    assert torch.equal(dataset.holdout_images, base.holdout_images)
    assert torch.equal(dataset.labels, base.labels)
    moved = (dataset.train_images.float() - base.train_images.float()).abs()
    assert 0.09 < moved.max() < 0.11
