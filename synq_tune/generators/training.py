"""A generator in training: its weights, its optimizer, one update, one epoch."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from synq_tune.config.generator_source import GeneratorSourceSettings
from synq_tune.errors import NonFiniteLossError
from synq_tune.generators.build import build_generator
from synq_tune.generators.classifier import first_vectors, latent_length
from synq_tune.generators.draws import Draw
from synq_tune.generators.losses import OF_STUDENT, Answers, weighted, weights
from synq_tune.graph.batchnorm import batch_statistics
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.synthesis.optimize import device_of, seeded_torch
from synq_tune.synthesis.statistics import in_order, layer_gaps, remembered

_BETAS = (0.5, 0.999)

Made = tuple[Draw, Tensor, Tensor]
"""A draw, its images (N, C, H, W) and the teacher's logits of them (N, K), without a graph."""


class GeneratorTraining:
    """A generator that learns from a teacher and, where a loss asks it, from a student."""

    def __init__(self, teacher: LoadedTeacher, config: GeneratorSourceSettings, seed: int) -> None:
        """Draw the weights from the seed, whatever torch drew before.

        Raises:
            InputError: the teacher has nothing that a setting asks for.
        """
        self.teacher, self.config = teacher, config
        self.student: nn.Module | None = None
        self.latent = latent_length(teacher, config)
        self.weights = weights(config)
        self.target = remembered(teacher.graph) if "bns" in self.weights else None
        self.network = self._network(seed)
        self.optimizer = torch.optim.Adam(self.network.parameters(), betas=_BETAS, fused=True)

    def _network(self, seed: int) -> nn.Module:
        teacher, shape = self.teacher, self.teacher.preprocessing.shape
        rows = first_vectors(teacher, self.config)
        with seeded_torch(seed, torch.device("cpu")):
            about = self.config, self.latent, teacher.num_classes, shape, rows
            return build_generator(*about).to(device_of(teacher))

    @property
    def asks_student(self) -> bool:
        """Whether a loss looks at the student."""
        return not OF_STUDENT.isdisjoint(self.weights)

    def epoch(self, epoch: int, drawn: Iterable[Draw], losses: dict[str, float]) -> Iterator[Made]:
        """One update a draw; yields what each was made of, from before the update.

        Args:
            epoch: of the generator, 0-based; decides its rate.
            drawn: the epoch's.
            losses: filled in at the end with the mean of each weighted loss, `total` among them.

        Raises:
            NonFiniteLossError: one became NaN or infinite.
        """
        passed = sum(epoch >= milestone for milestone in self.config.generator_milestones)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.generator_lr * 0.1**passed
        rows = []
        for draw in drawn:
            images, logits, found = self.update(draw)
            rows.append(found)
            yield draw, images, logits
        losses.update(self._means(torch.stack(rows), epoch))

    def update(self, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        """One step of Adam; returns images, logits and losses (1 + T,) from before it, detached."""
        images = self.network(draw)
        losses, logits = self._losses(images, draw)
        parameters = list(self.network.parameters())
        # Of these alone: neither network it is asked about collects a gradient.
        gradients = torch.autograd.grad(losses[0], parameters, materialize_grads=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.contiguous()
        self.optimizer.step()
        return images.detach(), logits.detach(), losses.detach()

    def _losses(self, images: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        """Losses (1 + T,) and the teacher's logits (N, K), with their graph."""
        graph, band = self.teacher.graph, self.config.generator_band_limits
        observed = contextlib.nullcontext() if self.target is None else batch_statistics(graph)
        with observed as seen:
            logits = self.teacher(images)
        gaps = None if self.target is None else layer_gaps(in_order(graph, seen), self.target)
        student = self.student(images) if self.asks_student else None
        target = draw.target(self.teacher.num_classes)
        return weighted(Answers(logits, student, target, gaps, band), self.weights), logits

    def _means(self, rows: Tensor, epoch: int) -> dict[str, float]:
        """Mean of (S, 1 + T) losses by name; the one synchronisation of an epoch."""
        names = ["total", *self.weights]
        means = dict(zip(names, rows.double().mean(0).tolist(), strict=True))
        broken = [name for name in (*names[1:], "total") if not math.isfinite(means[name])]
        if broken:
            raise NonFiniteLossError(
                f"the generator's {broken[0]} loss is {means[broken[0]]} in its epoch {epoch + 1} "
                f"(generator_lr={self.config.generator_lr})."
            )
        return means

    def state(self) -> dict[str, Tensor]:
        """Weights and Adam's moments."""
        slots = self.optimizer.state_dict()["state"]
        moments = {f"moments/{i}/{k}": v for i, slot in slots.items() for k, v in slot.items()}
        return {**{f"net/{k}": v for k, v in self.network.state_dict().items()}, **moments}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take what `state` gave."""
        self.network.load_state_dict(_under(state, "net/"))
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in _under(state, "moments/").items():
            number, _, slot = key.partition("/")
            moments.setdefault(int(number), {})[slot] = value
        now = self.optimizer.state_dict()
        self.optimizer.load_state_dict({**now, "state": moments})


def _under(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
