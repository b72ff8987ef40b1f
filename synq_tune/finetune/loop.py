"""The training loop: one student forward per step, no teacher, no host synchronisation.

Only recipes that perturb images against the student or align features (`synq_code`) ask the teacher
within the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

from synq_tune.config import FineTune
from synq_tune.errors import NonFiniteLossError
from synq_tune.finetune.divergence import check_finite_state, diverges_at, moment
from synq_tune.finetune.inundation import inundated
from synq_tune.finetune.losses import (
    cam_loss,
    distillation_loss,
    feature_loss,
    gap_loss,
    masked_cross_entropy,
)
from synq_tune.finetune.optimizer import lr_factor, optimizer_of, set_lr, update, warmup_factor
from synq_tune.graph.taps import FEATURE_TAP, record, tap_names
from synq_tune.quantization.student import weight_layers
from synq_tune.views.cam import cam_tap, normalize_maps, resize_maps, saliency_map
from synq_tune.views.difficulty import entropy_share
from synq_tune.views.source import Batch, Source


@dataclass
class EpochMetrics:
    """One evaluated epoch."""

    epoch: int
    """Number of finished epochs, from 1; 0 is before training: calibrated, and reconstructed."""
    losses: dict[str, float]
    """Mean of each weighted loss over the epoch's steps, `total` among them."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Accuracies, filled in by whoever evaluates; empty where an epoch is not evaluated."""
    is_last: bool = False
    """Whether the trial ends with it."""
    earlier: dict[int, dict[str, float]] = field(default_factory=dict)
    """The same losses of the epochs since the one before it, by epoch; nobody evaluated those."""
    position: int = 0
    """Parts that reconstruction has finished, where that is what got further; else 0."""


def finetune(
    student: fx.GraphModule,
    source: Source,
    config: FineTune,
    is_evaluated: Callable[[int], bool] = lambda epoch: True,
    teacher: fx.GraphModule | None = None,
    first_epoch: int = 0,
    optimizer: torch.optim.Optimizer | None = None,
) -> Iterator[EpochMetrics]:
    """Train a calibrated student in place (Eq. 6); BatchNorm statistics stay the teacher's.

    Args:
        student: calibrated, in evaluation mode.
        source: batches with the teacher's answers.
        config: the trial's settings.
        is_evaluated: whether to yield after an epoch, counted from 1; the last one always is.
        teacher: needed where `perturbation_weight` or `feature_weight` is above zero.
        first_epoch: epochs that the student and `optimizer` have behind them.
        optimizer: of the student, to be looked at or restored by the caller; by default the
            recipe's.

    Yields:
        EpochMetrics of each evaluated epoch, its losses and those of the epochs before it filled in.

    Raises:
        NonFiniteError: a loss, or after an epoch a weight, became NaN or infinite; names it, with
            epoch, step and settings.
    """
    step = TrainingStep(student, config, teacher)
    optimizer = optimizer_of(student, config) if optimizer is None else optimizer
    total = max(1, config.epochs * source.steps_per_epoch)
    source.watch(student)
    layers = list(weight_layers(student).values()) if config.inundation > 0 else []
    earlier: dict[int, dict[str, float]] = {}
    for epoch in range(first_epoch, config.epochs):
        rows = []
        for number, batch in enumerate(source.batches(epoch)):
            done = epoch * source.steps_per_epoch + number
            rise = warmup_factor(config, (done + 1) / total)
            fall = lr_factor(config, epoch, done / total)
            set_lr(optimizer, config.lr * rise * fall)
            with_codes = inundated(layers, config.inundation * fall, config.inundation_cap)
            rows.append(one_update(step, batch, optimizer, config, with_codes))
            source.after_step(student, batch)
        losses = _mean_losses(step.loss_names, torch.stack(rows), epoch + 1, config)
        with diverges_at(epoch + 1, config):
            check_finite_state(student)
        earlier[epoch + 1] = losses | _of_source(source)
        if is_evaluated(epoch + 1) or epoch + 1 == config.epochs:
            yield EpochMetrics(epoch + 1, earlier.pop(epoch + 1), earlier=earlier)
            earlier = {}


def _of_source(source: Source) -> dict[str, float]:
    return {f"source/{name}": value for name, value in source.losses().items()}


def one_update(
    step: TrainingStep,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    config: FineTune,
    around: AbstractContextManager[None] = nullcontext(),  # noqa: B008
) -> Tensor:
    """Take one optimizer step.

    Args:
        around: entered for the optimizer's own part, and used again in the next update.

    Returns:
        The losses (L,) in the order of `step.loss_names`, detached, still on the device.
    """
    losses = step(batch)
    optimizer.zero_grad(set_to_none=True)
    losses[0].backward()
    with around:
        update(optimizer, config.grad_clip)
    return losses.detach()


class TrainingStep:
    """Batch → losses (L,): the total first, then each weighted part in order of `loss_names`."""

    def __init__(
        self, student: fx.GraphModule, config: FineTune, teacher: fx.GraphModule | None
    ) -> None:
        self.student, self.config, self.teacher = student, config, teacher
        self.cam_tap = cam_tap(student, config.cam) if config.lambda_cam > 0 else None
        self.feature_taps = tap_names(student, FEATURE_TAP) if config.feature_weight > 0 else []
        self.asks_teacher = config.perturbation_weight > 0 or config.feature_weight > 0
        if self.asks_teacher and teacher is None:
            raise ValueError(
                "`a teacher is given` must hold, but got teacher=None with "
                f"perturbation_weight={config.perturbation_weight}, "
                f"feature_weight={config.feature_weight}."
            )

    @property
    def loss_names(self) -> list[str]:
        """Names of the losses returned."""
        config = self.config
        parts = {"kd": True, "gap": config.gap_weight > 0, "ce": config.lambda_ce > 0}
        parts |= {"cam": self.cam_tap is not None}
        parts |= {"feature": bool(self.feature_taps), "perturbed": config.perturbation_weight > 0}
        return ["total", *(name for name, is_on in parts.items() if is_on)]

    def __call__(self, batch: Batch) -> Tensor:
        """Forward `batch` and return its losses with their graph."""
        is_perturbed = self.config.perturbation_weight > 0
        images = batch.images.requires_grad_(is_perturbed)
        names = ([self.cam_tap] if self.cam_tap else []) + self.feature_taps
        with record(self.student, names) as values:
            logits = self.student(images)
        teacher_logits, features = self._ask_teacher(images, batch)
        parts = self._clean(logits, teacher_logits, values, features, batch)
        if self.cam_tap:
            parts["cam"] = self._cam(values[self.cam_tap], logits, batch)
        if is_perturbed:
            parts["perturbed"] = self._perturbed(images, parts, batch)
        ordered = [parts[name] for name in self.loss_names[1:]]
        return torch.stack([sum(ordered), *ordered])

    def _ask_teacher(self, images: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The stored logits, or fresh ones with the teacher's features where a recipe needs
        them."""
        if not self.asks_teacher:
            return batch.teacher_logits, {}
        is_walked = torch.set_grad_enabled(images.requires_grad)
        with is_walked, record(self.teacher, self.feature_taps) as features:
            return self.teacher(images), features

    def _clean(
        self,
        logits: Tensor,
        teacher_logits: Tensor,
        values: dict[str, Tensor],
        features: dict[str, Tensor],
        batch: Batch,
    ) -> dict[str, Tensor]:
        config = self.config
        parts = self._kd_and_ce(logits, teacher_logits, batch)
        if self.feature_taps:
            pairs = ([m[name] for name in self.feature_taps] for m in (values, features))
            parts["feature"] = config.feature_weight * feature_loss(*pairs)
        return parts

    def _kd_and_ce(self, logits: Tensor, teacher_logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        config = self.config
        pair = logits, teacher_logits, config.temperature
        parts = {"kd": config.kd_weight * distillation_loss(*pair, config.kd_reduction)}
        if config.gap_weight > 0:
            parts["gap"] = config.gap_weight * gap_loss(*pair)
        if config.lambda_ce > 0:
            parts["ce"] = config.lambda_ce * self._masked(logits, batch)
        return parts

    def _masked(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy with what each image is asked for; the clean image's, also where it is
        perturbed."""
        config, answer = self.config, batch.teacher_logits
        hard = entropy_share(answer) if config.mask_by == "entropy" else batch.difficulty
        harder = answer.softmax(1) if config.masked_target == "teacher" else None
        return masked_cross_entropy(
            logits, batch.target, hard, config.tau, config.mask_strict, harder
        )

    def _cam(self, activations: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        config = self.config
        classes = logits.argmax(1) if config.cam_class == "argmax" else batch.labels
        scores = logits.gather(1, classes[:, None])[:, 0]
        student = saliency_map(activations, scores, config.cam, config.cam_floor)
        maps = [student, batch.saliency]
        if config.cam_resize:
            maps = [resize_maps(m, batch.images.shape[-2:]) for m in maps]
        if config.cam_normalize:
            maps = [normalize_maps(m) for m in maps]
        return config.lambda_cam * cam_loss(*maps, config.cam_reduction)

    def _perturbed(self, images: Tensor, parts: dict[str, Tensor], batch: Batch) -> Tensor:
        """The losses on images moved by ε against student and teacher (HAST, released SynQ)."""
        config = self.config
        clean = sum(parts[name] for name in ("kd", "gap", "ce", "feature") if name in parts)
        (gradient,) = torch.autograd.grad(clean, images, retain_graph=True)
        moved = images.detach() + config.perturbation_epsilon * gradient.sign()
        with torch.no_grad(), record(self.teacher, self.feature_taps) as features:
            teacher_logits = self.teacher(moved)
        with record(self.student, self.feature_taps) as values:
            logits = self.student(moved)
        moved_parts = self._clean(logits, teacher_logits, values, features, batch)
        return config.perturbation_weight * sum(moved_parts.values())


def _mean_losses(names: list[str], rows: Tensor, epoch: int, config: FineTune) -> dict[str, float]:
    """Mean of (S, L) losses by name; one host synchronisation per epoch."""
    rows = rows.double().cpu()
    if not torch.isfinite(rows).all():
        step, column = (~torch.isfinite(rows)).nonzero()[0].tolist()
        # The total comes first but is only the sum: name the part that broke.
        broken = [i for i in range(1, len(names)) if not torch.isfinite(rows[step, i])]
        name = names[broken[0] if broken else column]
        raise NonFiniteLossError(
            f"{name} loss is {float(rows[step, column])} {moment(epoch, config, step + 1)}"
        )
    return dict(zip(names, rows.mean(0).tolist(), strict=True))
