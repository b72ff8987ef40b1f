"""The passes of the released SynQ code's fine-tuning step, for comparison only.

Per step: the teacher forwards three times (clean, perturbed, CAM) with gradients to its own
parameters, the student three times and once more on a blank image; backwards are that of the
input's gradient, one full backward per network for CAM, and the final one, which walks the student
three times and the teacher twice. Left out, so that the comparison flatters the released code:
hooks that pile up, a check for NaN at each of them and over all parameters, the Fourier filter and
the crops made on the CPU for every batch, and its own fake-quantization (the student here is ours).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx

from synq_tune.config import FineTune
from synq_tune.finetune.losses import (
    cam_loss,
    distillation_loss,
    feature_loss,
    masked_cross_entropy,
)
from synq_tune.graph.taps import FEATURE_TAP, record, tap_names
from synq_tune.views.cam import cam_tap, normalize_maps, resize_maps
from synq_tune.views.difficulty import difficulty
from synq_tune.views.source import Batch

_Answer = tuple[Tensor, list[Tensor]]
"""Logits (N, K) and the maps of every residual branch."""


class ReleasedStep:
    """One optimizer step per call; `config` is that of the recipe `synq_code`."""

    def __init__(self, student: fx.GraphModule, teacher: fx.GraphModule, config: FineTune) -> None:
        """Take a calibrated student of its own, and a teacher, which is copied."""
        self.student, self.config = student, config
        # The released code leaves the teacher's parameters trainable and fills their gradients.
        self.teacher = copy.deepcopy(teacher).requires_grad_(True)
        self.optimizer = torch.optim.SGD(
            student.parameters(), lr=config.lr, momentum=config.momentum, nesterov=config.nesterov
        )

    def __call__(self, batch: Batch) -> None:
        """Update the student."""
        images = batch.images.detach().clone().requires_grad_(True)
        answers = self._ask(self.teacher, images), self._ask(self.student, images)
        difficulties = difficulty(answers[0][0].detach(), batch.labels)
        clean = self._losses(*answers, batch.labels, difficulties)
        (gradient,) = torch.autograd.grad(clean, images, retain_graph=True)
        moved = images.detach() + self.config.perturbation_epsilon * gradient.sign()
        with torch.no_grad():
            moved_teacher = self._ask(self.teacher, moved)
        moved_student = self._ask(self.student, moved)
        perturbed = self._losses(moved_teacher, moved_student, batch.labels, difficulties)
        with torch.no_grad():
            self.student(torch.zeros_like(images[:1]))
        cam = self._cam(images.detach())
        self._update(clean + self.config.perturbation_weight * perturbed + cam)

    def _update(self, total: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=False)
        total.backward()
        self.optimizer.step()

    def _ask(self, network: fx.GraphModule, images: Tensor) -> _Answer:
        taps = tap_names(network, FEATURE_TAP)
        with record(network, taps) as values:
            logits = network(images)
        return logits, [values[name] for name in taps]

    def _losses(
        self, teacher: _Answer, student: _Answer, labels: Tensor, difficulties: Tensor
    ) -> Tensor:
        config = self.config
        kd = distillation_loss(student[0], teacher[0], config.temperature)
        ce = masked_cross_entropy(student[0], labels, difficulties, config.tau, strict=True)
        features = feature_loss(student[1], teacher[1])
        return config.kd_weight * kd + config.lambda_ce * ce + config.feature_weight * features

    def _cam(self, images: Tensor) -> Tensor:
        maps = [self._map(network, images) for network in (self.teacher, self.student)]
        return self.config.lambda_cam * cam_loss(maps[1], maps[0])

    def _map(self, network: fx.GraphModule, images: Tensor) -> Tensor:
        """A forward of its own, and a backward of the class score through the whole network."""
        tap = cam_tap(network, self.config.cam)
        with record(network, [tap]) as values:
            logits = network(images)
        activations = values[tap]
        activations.retain_grad()
        logits.amax(1).sum().backward(retain_graph=True)
        weights = activations.grad.mean((2, 3)).clamp_min(1e-10)
        activations.grad = None
        maps = torch.einsum("nc,nchw->nhw", weights, activations).relu()
        return normalize_maps(resize_maps(maps, images.shape[-2:]))
