"""The source `generator`: it takes its step on a batch before the student does, on the same images.

So do all releases: the images that a student is shown were made before the generator's step.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from synq_tune.config import FineTune, ViewSettings
from synq_tune.generators.draws import Draw, draws
from synq_tune.generators.requirements import check, training_bytes
from synq_tune.generators.training import GeneratorTraining, Made
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.process.progress import progress_bar
from synq_tune.seeds import derive_seed
from synq_tune.views.difficulty import difficulty
from synq_tune.views.low_pass import low_pass
from synq_tune.views.source import Batch, Source, SourceMaterial
from synq_tune.views.teacher_cache import explain
from synq_tune.views.transforms import draw_transforms


class GeneratorSource(Source):
    """Batches of a generator in training; every draw follows from the seed and the epoch."""

    def __init__(self, material: SourceMaterial, config: FineTune, seed: int) -> None:
        """Nothing is trained yet.

        Raises:
            InputError: the teacher has nothing that a setting asks for.
        """
        self.config, self.seed, self.device = config, seed, material.device
        self.teacher = material.teacher
        self.training = GeneratorTraining(self.teacher, config, derive_seed("generator", seed))
        self._one_pass = -(-len(material.dataset.train_images) // config.batch_size)
        self._shown = config.part(ViewSettings).model_copy(update={"num_views": 1})
        self._losses: dict[str, float] = {}

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
        return self.training.asks_student

    def watch(self, student: nn.Module) -> None:
        """Look at this student from now on."""
        self.training.student = student

    def warm_up(self, epoch: int) -> None:
        """Train the generator for an epoch without the student."""
        with progress_bar(self.steps_per_epoch, "generator", may_be_short=True) as bar:
            for _ in self._epoch(epoch):
                bar.update()

    def batches(self, epoch: int) -> Iterator[Batch]:
        """One step of the generator for each batch."""
        for number, made in enumerate(self._epoch(self.warmup_epochs + epoch)):
            yield self._batch(made, derive_seed("generator view", self.seed, epoch, number))

    def calibration_images(self) -> Iterator[Tensor]:
        """What the generator makes as it is now, filtered as the student's images are."""
        return self._made("calibration", self.config.calibration_batches)

    def image_batches(self, epoch: int) -> Iterator[Tensor]:
        """An epoch's worth of them, without a step of the generator."""
        return self._made(f"images {epoch}", self.steps_per_epoch)

    def _made(self, part: str, count: int) -> Iterator[Tensor]:
        """Batches of the generator as it is now, in one view each."""
        for number, draw in enumerate(itertools.islice(self._draws(part), count)):
            with torch.no_grad():
                images = self.training.network(draw)
            yield self._view(images, derive_seed("generator view", self.seed, part, number))

    def losses(self) -> dict[str, float]:
        """Mean of each weighted loss over the last epoch's steps, `total` among them."""
        return dict(self._losses)

    def state(self) -> dict[str, Tensor]:
        """Weights and Adam's moments; draws follow from the epoch."""
        return self.training.state()

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`."""
        self.training.restore(state)

    def _draws(self, part: int | str) -> Iterator[Draw]:
        """Those of an epoch of the generator, or of calibration."""
        generator = torch.Generator().manual_seed(derive_seed("generator", self.seed, part))
        about = self.config, self.config.batch_size, self.training.latent
        for draw in draws(*about, self.teacher.num_classes, generator):
            yield draw.to(self.device)

    def _epoch(self, epoch: int) -> Iterator[Made]:
        """Train through an epoch of the generator, 0-based."""
        drawn = itertools.islice(self._draws(epoch), self.steps_per_epoch)
        yield from self.training.epoch(epoch, drawn, self._losses)

    def _batch(self, made: Made, seed: int) -> Batch:
        """What the student's step reads; the teacher is asked again about changed images."""
        draw, images, logits = made
        config, labels, maps = self.config, draw.labels, {}
        shown = self._view(images, seed)
        techniques = [config.cam] if config.lambda_cam > 0 else []
        if techniques or shown is not images:
            logits, maps = explain(self.teacher, shown, labels, techniques, config)
        classes = self.teacher.num_classes
        hard, shares = difficulty(logits, draw.target(classes)), draw.mixture(classes)
        return Batch(shown, labels, logits, maps.get(config.cam), hard, shares)

    def _view(self, images: Tensor, seed: int) -> Tensor:
        """One view of each image: cropped, mirrored, mixed and filtered as the recipe asks."""
        config = self._shown
        if config.crop_scale is None and not config.flip and config.mix_weight is None:
            return low_pass(images, config.d0)
        transforms = draw_transforms(len(images), config, seed).to(images.device)
        base = low_pass(images, config.d0) if config.filter_before_crop else images
        return transforms.pixels(base, 0, torch.arange(len(images), device=images.device), config)


class _Generators:
    """The family member `generator`: makes a source, and says beforehand what it needs."""

    stores_views = False

    def __call__(self, material: SourceMaterial, config: FineTune, seed: int) -> GeneratorSource:
        return GeneratorSource(material, config, seed)

    check: Callable[[LoadedTeacher, FineTune], None] = staticmethod(check)
    training_bytes: Callable[[LoadedTeacher, FineTune], int] = staticmethod(training_bytes)


GENERATOR = _Generators()
