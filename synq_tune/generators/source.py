"""The source `generator`: it takes its step on a batch before the student does, on the same images.

So do all releases: the images that a student is shown were made before the generator's step.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from synq_tune.config import FineTune, ViewSettings
from synq_tune.errors import NonFiniteLossError
from synq_tune.generators.build import build_generator
from synq_tune.generators.classifier import first_vectors, latent_length
from synq_tune.generators.draws import Draw, draws
from synq_tune.generators.losses import OF_STUDENT, Answers, weighted, weights
from synq_tune.generators.requirements import check, training_bytes
from synq_tune.graph.batchnorm import batch_statistics
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.process.progress import progress_bar
from synq_tune.seeds import derive_seed
from synq_tune.synthesis.optimize import seeded_torch
from synq_tune.synthesis.statistics import in_order, layer_gaps, remembered
from synq_tune.views.difficulty import difficulty
from synq_tune.views.low_pass import low_pass
from synq_tune.views.source import Batch, Source, SourceMaterial
from synq_tune.views.teacher_cache import explain
from synq_tune.views.transforms import draw_transforms

_BETAS = (0.5, 0.999)


class GeneratorSource(Source):
    """A generator and its optimizer; every draw follows from the seed and the epoch."""

    def __init__(self, material: SourceMaterial, config: FineTune, seed: int) -> None:
        """Draw the generator's weights from the seed, whatever torch drew before.

        Raises:
            InputError: the teacher has nothing that a setting asks for.
        """
        self.config, self.seed, self.device = config, seed, material.device
        self.teacher, self.student = material.teacher, None
        self.latent = latent_length(material.teacher, config)
        self.weights = weights(config)
        self.target = remembered(material.teacher.graph) if "bns" in self.weights else None
        self._one_pass = -(-len(material.dataset.train_images) // config.batch_size)
        self._shown = config.part(ViewSettings).model_copy(update={"num_views": 1})
        self.network = self._network()
        self.optimizer = torch.optim.Adam(self.network.parameters(), betas=_BETAS, fused=True)
        self._epoch_losses: dict[str, float] = {}

    def _network(self) -> nn.Module:
        teacher, config = self.teacher, self.config
        rows = first_vectors(teacher, config)
        shape = teacher.preprocessing.shape
        with seeded_torch(derive_seed("generator", self.seed), torch.device("cpu")):
            network = build_generator(config, self.latent, teacher.num_classes, shape, rows)
        return network.to(self.device)

    @property
    def steps_per_epoch(self) -> int:
        """As set; else as many images as the dataset's training part has."""
        return self.config.steps_per_epoch or self._one_pass

    @property
    def warmup_epochs(self) -> int:
        """The generator's epochs before the student's first."""
        return self.config.generator_warmup_epochs

    @property
    def freeze_epoch(self) -> int:
        """Those of them behind which ranges are found."""
        return self.config.freeze_epoch

    @property
    def asks_student(self) -> bool:
        """Whether a loss looks at the student."""
        return not OF_STUDENT.isdisjoint(self.weights)

    def watch(self, student: nn.Module) -> None:
        """Look at this student from now on."""
        self.student = student

    def warm_up(self, epoch: int) -> None:
        """Train the generator for an epoch without the student."""
        with progress_bar(self.steps_per_epoch, "generator", may_be_short=True) as bar:
            for _ in self._steps(epoch):
                bar.update()

    def batches(self, epoch: int) -> Iterator[Batch]:
        """One step of the generator for each batch."""
        steps = self._steps(self.warmup_epochs + epoch)
        for number, (draw, images, logits) in enumerate(steps):
            yield self._batch(draw, *self._view(images, logits, epoch, number))

    def calibration_images(self) -> Iterator[Tensor]:
        """What the generator makes as it is now, filtered as the student's images are."""
        chosen = self._draws("calibration", 0)
        for number, draw in enumerate(itertools.islice(chosen, self.config.calibration_batches)):
            with torch.no_grad():
                images = self.network(draw)
            yield self._pixels(images, -1, number)

    def losses(self) -> dict[str, float]:
        """Mean of each weighted loss over the last epoch's steps, `total` among them."""
        return self._epoch_losses

    def _draws(self, *about: int | str) -> Iterator[Draw]:
        generator = torch.Generator().manual_seed(derive_seed("generator", self.seed, *about))
        size, classes = self.config.batch_size, self.teacher.num_classes
        for draw in draws(self.config, size, self.latent, classes, generator):
            yield draw.to(self.device)

    def _steps(self, epoch: int) -> Iterator[tuple[Draw, Tensor, Tensor]]:
        """Draw, images (N, C, H, W) and the teacher's logits (N, K) of each of an epoch's steps.

        Args:
            epoch: of the generator, 0-based.
        """
        passed = sum(epoch >= milestone for milestone in self.config.generator_milestones)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.generator_lr * 0.1**passed
        rows = []
        for draw in itertools.islice(self._draws(epoch), self.steps_per_epoch):
            images, logits, losses = self._step(draw)
            rows.append(losses)
            yield draw, images, logits
        self._epoch_losses = self._means(torch.stack(rows), epoch)

    def _step(self, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        """One update; returns images, logits and losses (1 + T,) from before it, detached."""
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
        graph = self.teacher.graph
        observed = contextlib.nullcontext() if self.target is None else batch_statistics(graph)
        with observed as seen:
            logits = self.teacher(images)
        gaps = None if self.target is None else layer_gaps(in_order(graph, seen), self.target)
        student = self.student(images) if self.asks_student else None
        band = self.config.generator_band_limits
        answers = Answers(logits, student, self._target(draw), gaps, band)
        return weighted(answers, self.weights), logits

    def _target(self, draw: Draw) -> Tensor:
        shares = draw.targets(self.teacher.num_classes)
        return draw.labels if shares is None else shares

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

    def _view(
        self, images: Tensor, logits: Tensor, epoch: int, number: int
    ) -> tuple[Tensor, Tensor | None]:
        """Images as the student is shown them, and the teacher's logits where they still hold."""
        shown = self._pixels(images, epoch, number)
        return shown, logits if shown is images else None

    def _pixels(self, images: Tensor, epoch: int, number: int) -> Tensor:
        """One view of each image: cropped, mirrored, mixed and filtered as the recipe asks."""
        config = self._shown
        if config.crop_scale is None and not config.flip and config.mix_weight is None:
            return low_pass(images, config.d0)
        seed = derive_seed("generator view", self.seed, epoch, number)
        transforms = draw_transforms(len(images), config, seed).to(images.device)
        base = low_pass(images, config.d0) if config.filter_before_crop else images
        return transforms.pixels(base, 0, torch.arange(len(images), device=images.device), config)

    def _batch(self, draw: Draw, images: Tensor, logits: Tensor | None) -> Batch:
        """What the student's step reads; the teacher is asked again about changed images."""
        config, labels, maps = self.config, draw.labels, {}
        techniques = [config.cam] if config.lambda_cam > 0 else []
        if logits is None or techniques:
            logits, maps = explain(self.teacher, images, labels, techniques, config)
        hard = difficulty(logits, self._target(draw))
        shares = draw.targets(self.teacher.num_classes)
        return Batch(images, labels, logits, maps.get(config.cam), hard, shares)

    def state(self) -> dict[str, Tensor]:
        """Weights and Adam's moments; draws follow from the epoch."""
        slots = self.optimizer.state_dict()["state"]
        moments = {f"moments/{i}/{k}": v for i, slot in slots.items() for k, v in slot.items()}
        return {**{f"net/{k}": v for k, v in self.network.state_dict().items()}, **moments}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`."""
        self.network.load_state_dict(_under(state, "net/"))
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in _under(state, "moments/").items():
            number, _, slot = key.partition("/")
            moments.setdefault(int(number), {})[slot] = value
        now = self.optimizer.state_dict()
        self.optimizer.load_state_dict({**now, "state": moments})


def _under(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


class _Generators:
    """The family member `generator`: makes a source, and says beforehand what it needs."""

    stores_views = False

    def __call__(self, material: SourceMaterial, config: FineTune, seed: int) -> GeneratorSource:
        return GeneratorSource(material, config, seed)

    check: Callable[[LoadedTeacher, FineTune], None] = staticmethod(check)
    training_bytes: Callable[[LoadedTeacher, FineTune], int] = staticmethod(training_bytes)


GENERATOR = _Generators()
